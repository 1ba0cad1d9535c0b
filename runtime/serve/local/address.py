"""The socket's place in the file system: who may come in, and what may already stand there."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...checks.bounds import shown
from ...errors import ServeError

# `sun_path` of Linux, without the zero that ends it.
_LONGEST_PATH = 107
_BACKLOG = 16


@contextmanager
def socket_at(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path` that this user alone can connect to; the path is removed in the end.

    A socket that a killed server has left there is replaced.

    Raises:
        ServeError: something else is there, a server listens there, or the path cannot be used.
    """
    name = shown(str(path))
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ServeError(f"--unix {name} is longer than {_LONGEST_PATH} bytes; choose a shorter path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            # Before it has a name, so that there is no moment at which others could connect.
            os.fchmod(listener.fileno(), 0o600)
            _bind(listener, path, name)
            listener.listen(_BACKLOG)
            ours = os.lstat(path).st_ino
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no path of a file"
            raise ServeError(
                f"--unix {name} cannot be opened ({reason}); choose a path in a folder of this user."
            ) from None
        try:
            yield listener
        finally:
            # Another server may have taken the name.
            with suppress(OSError):
                if os.lstat(path).st_ino == ours:
                    os.unlink(path)


def refuse_strangers(connection: socket.socket) -> None:
    """Raise `ServeError` unless the other side runs as this user, or as root."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user not in (os.geteuid(), 0):
        raise ServeError(f"This socket is for user {os.geteuid()}, not for user {user}; run the client as that user.")


def _bind(listener: socket.socket, path: Path, name: str) -> None:
    try:
        listener.bind(os.fspath(path))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _remove_stale(path, name)
        listener.bind(os.fspath(path))


def _remove_stale(path: Path, name: str) -> None:
    """Make room where a socket is that nobody listens to."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ServeError(f"--unix {name} exists and is no socket; choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        # One that listens and is too busy to answer is in use, too.
        caller.settimeout(1.0)
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (BlockingIOError, TimeoutError):
            pass
    raise ServeError(f"--unix {name} is in use by another server; choose another path, or stop that one.")
