"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import IO

from .errors import OutputError

_CURE = "free some space or choose another place"


class PendingFile:
    """A temporary sibling of `path` that replaces it at `commit`; until then an older file stays as it is.

    `write` never raises: a muxer calls it from C, where an exception would be lost. The first failure is kept and
    `check` or `commit` raise it.
    """

    def __init__(self, path: str | Path) -> None:
        """Create the temporary file.

        Raises:
            OutputError: the folder is missing or not writable, or `path` is something else than a file.
        """
        self.path = Path(path)
        self._failure: str | None = None
        try:
            self._target = Path(os.path.realpath(path))
            if self._target.exists() and not self._target.is_file():
                raise OutputError(f"{str(path)!r} is not a file; choose another name for the output.")
            if self._target.exists() and not os.access(self._target, os.W_OK):
                raise OutputError(f"{str(path)!r} is write-protected; choose another name for the output.")
            self._temporary = self._target.with_name(f".{self._target.name[:80]}.{secrets.token_hex(4)}.part")
            # Unbuffered: a failure must not come back when a buffer is flushed at exit.
            self._stream: IO[bytes] = self._temporary.open("xb", buffering=0)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{str(path)!r} cannot be written ({reason}); choose a folder that exists and is writable."
            ) from None

    def write(self, data: bytes) -> int:
        """Write all of `data`, or keep the failure and pretend; returns its length."""
        view = memoryview(data)
        try:
            while view and self._failure is None:
                view = view[self._stream.write(view) :]
        except OSError as error:
            self._failure = error.strerror or str(error)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte offset, as `io.IOBase.seek`."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The current byte offset."""
        return self._stream.tell()

    def check(self) -> None:
        """Raise `OutputError` if a write has failed."""
        if self._failure is not None:
            raise OutputError(f"{str(self.path)!r} cannot be written ({self._failure}); {_CURE}.")

    def commit(self) -> None:
        """Make the file appear under its name.

        Raises:
            OutputError: a write, or the last step, failed; the temporary file is gone and the older file as it was.
        """
        try:
            if self._failure is None:
                os.fsync(self._stream.fileno())
                self._stream.close()
                self._temporary.replace(self._target)
        except OSError as error:
            self._failure = error.strerror or str(error)
        if self._failure is not None:
            self.discard()
        self.check()

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> PendingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
