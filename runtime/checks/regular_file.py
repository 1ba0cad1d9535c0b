"""Opens what should be a file and may be anything: a pipe that never answers, a device without an end, a loop of links.

In: a path. Out: an open regular file or its content; else an OSError whose `strerror` fits into a sentence.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

# Windows knows the first three not, and opens in text mode without the last.
_FLAGS = os.O_RDONLY
for _name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)
_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}


def real_path(path: str | Path) -> str:
    """`path` with all links in it followed, as far as there is something.

    Raises:
        OSError: no file can have this name.
    """
    try:
        return os.path.realpath(path)
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name") from None


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading: never waits, and follows no link in the last part of `path`.

    Raises:
        OSError: it is something else, or cannot be opened.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link") from None
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is no file but a socket") from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = "folder" if stat.S_ISDIR(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")
    raise OSError(errno.EINVAL, f"it is no file but a {kind}")


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: it is something else, larger, or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB")
    return content


def state_of(file: BufferedReader) -> tuple[int, int, int]:
    """What changes when an open file is written to: its size, and when its content and its record last changed."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def reason(error: OSError) -> str:
    """What the system says of a file, as part of a sentence that names the file."""
    return error.strerror or type(error).__name__
