"""Programs of this machine, in any language: messages over a Unix socket, frames over shared memory."""
