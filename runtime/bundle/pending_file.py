"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import OutputError, OutputKeptError

_CURE = "free some space or choose another place"
_MAX_NAME_BYTES = 160


def short_name(name: str) -> str:
    """The start of a file name, which leaves room for more characters in the 255 bytes of a name."""
    return name.encode("utf-8", "ignore")[:_MAX_NAME_BYTES].decode("utf-8", "ignore")


def remove_left_behind(paths: Iterable[str | Path]) -> None:
    """Remove what processes that died were writing for these files, which nobody may be writing now."""
    starts: dict[Path, set[str]] = {}
    for path in paths:
        target = Path(os.path.realpath(path))
        starts.setdefault(target.parent, set()).add(f".{short_name(target.name)}")
    for folder, wanted in starts.items():
        with suppress(OSError):
            for entry in folder.iterdir():
                left = re.fullmatch(r"(\..*)\.[0-9a-f]{8}\.part", entry.name, re.DOTALL)
                if left and left[1] in wanted:
                    entry.unlink()


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
        self._complete = False
        self._failure: str | None = None
        try:
            self._target = Path(os.path.realpath(path))
            if self._target.exists() and not self._target.is_file():
                raise OutputError(f"{str(path)!r} is not a file; choose another name for the output.")
            if self._target.exists() and not os.access(self._target, os.W_OK):
                raise OutputError(f"{str(path)!r} is write-protected; choose another name for the output.")
            self._temporary = self._target.with_name(f".{short_name(self._target.name)}.{secrets.token_hex(4)}.part")
            # Unbuffered: a failure must not come back when a buffer is flushed at exit.
            self._stream: IO[bytes] = self._temporary.open("xb", buffering=0)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{str(path)!r} cannot be written ({reason}); choose a folder that exists and is writable."
            ) from None

    def write(self, data: bytes | memoryview) -> int:
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

    @property
    def name(self) -> str:
        """The temporary file as FFmpeg names it: a muxer may read again what it wrote."""
        return f"file:{self._temporary}"

    def check(self) -> None:
        """Raise `OutputError` if a write has failed."""
        if self._failure is not None:
            raise OutputError(f"{str(self.path)!r} cannot be written ({self._failure}); {_CURE}.")

    def commit(self) -> None:
        """Make the file appear under its name.

        Raises:
            OutputError: a write failed; the temporary file is gone and the older file as it was.
            OutputKeptError: the name cannot be taken (it is a mount, a player holds it, the folder lets nobody replace
                another's file); the file is complete under another name, and the older one as it was.
        """
        try:
            if self._failure is None:
                os.fsync(self._stream.fileno())
        except OSError as error:
            self._failure = error.strerror or str(error)
        self._stream.close()
        if self._failure is not None:
            self.discard()
        self.check()
        try:
            self._temporary.replace(self._target)
        except OSError as error:
            self._complete = True
            kept = self._keep()
            raise OutputKeptError(
                f"{str(self.path)!r} cannot be replaced ({error.strerror or error}); the new file is complete as "
                f"{str(kept)!r}.",
                kept,
            ) from None

    def _keep(self) -> Path:
        """Give the complete file a name that is seen; where even that fails it stays under the temporary one."""
        stem, suffix = short_name(self._target.stem), self._target.suffix
        kept = self._target.with_name(f"{stem}-{secrets.token_hex(4)}{suffix}")
        try:
            self._temporary.rename(kept)
        except OSError:
            return self._temporary
        return kept

    def discard(self) -> None:
        """Remove the temporary file, if it is still there and not complete."""
        self._stream.close()
        if not self._complete:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> PendingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
