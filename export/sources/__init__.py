"""Where the networks of an export come from."""
