"""The kernels that TensorRT-RTX compiles at its first run, kept in a file so that the next start is quick."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.manifest import EngineInfo
from ..bundle.pending_file import PendingFile
from ..errors import OutputError, OutputKeptError

MAX_BYTES = 1 << 30


def cache_path(bundle: Bundle, name: str, engine: EngineInfo, compute_capability: str) -> Path:
    """Where the kernels of one plan on one kind of GPU are kept: beside the bundle, which itself stays as it is.

    The name holds the start of the plan's hash, so that another plan never meets them.
    """
    digest = bundle.manifest.files[engine.file].sha256[:16]
    root = bundle.root.resolve()
    return root.with_name(f"{root.name}.cache") / f"{name}-{digest}-sm{compute_capability.replace('.', '')}.rtx"


class RuntimeCacheFile:
    """Reads and writes an `IRuntimeCache`; a file that cannot be used is as good as none."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self._path, self._size = path, 0

    def load(self, cache: Any) -> bool:
        """Fill `cache` from the file; whether it was there, safe to read, and accepted.

        The file holds code of the GPU: one that others may write, or that belongs to somebody else, is left alone.
        """
        try:
            with self._path.open("rb") as stream:
                about = os.fstat(stream.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES or not _private(about):
                    return False
                data = stream.read()
        except OSError:
            return False
        if not data or not cache.deserialize(data):
            return False
        self._size = len(data)
        return True

    def save(self, cache: Any) -> bool:
        """Write the cache if it has grown; whether it was written. A read-only place is no error."""
        serialized = cache.serialize()
        # None where TensorRT-RTX has nothing to keep.
        data = b"" if serialized is None else bytes(serialized)
        if not data or len(data) == self._size:
            return False
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            with PendingFile(self._path) as file:
                file.write(data)
                file.commit()
        except OutputKeptError as error:
            # A cache is worth no second file.
            error.kept.unlink(missing_ok=True)
            return False
        except (OSError, OutputError):
            return False
        self._size = len(data)
        return True


def _private(about: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):
        return True
    return about.st_uid in (os.geteuid(), 0) and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
