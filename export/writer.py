"""Writing a bundle: into a temporary sibling folder that takes the bundle's name only when it is complete."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from rap_edge.runtime.bundle import MANIFEST_NAME, FileInfo, Manifest, hash_file
from rap_edge.runtime.errors import OutputError

# A protobuf message cannot exceed 2 GiB; some room is left for the nodes.
EXTERNAL_DATA_LIMIT = (2 << 30) - (64 << 20)
_SMALL_TENSOR = 1024


class BundleWriter:
    """A bundle in the making; `commit` puts it in the place of the old one."""

    def __init__(self, target: Path) -> None:
        """Made by `new_bundle`."""
        self._target = target
        self.root = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.part")

    def save_graph(self, model: ir.Model, name: str, limit: int = EXTERNAL_DATA_LIMIT) -> tuple[str, tuple[str, ...]]:
        """Write one graph; its weights go into a file beside it if they pass `limit` bytes.

        Returns:
            The graph's file and its external data files, paths inside the bundle.
        """
        file, data = f"{name}.onnx", f"{name}.onnx.data"
        weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
        external = weights > limit
        ir.save(
            model,
            self.root / file,
            external_data=data if external else None,
            size_threshold_bytes=_SMALL_TENSOR,
        )
        return file, (data,) if external else ()

    def add(self, inside: str, content: bytes) -> str:
        """Write a small file; returns its path inside the bundle."""
        path = self.root / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return inside

    def hashes(self) -> dict[str, FileInfo]:
        """Size and sha256 of every file so far, by path inside the bundle."""
        files = sorted(path for path in self.root.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
        return {path.relative_to(self.root).as_posix(): hash_file(path) for path in files}

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest and put the folder in its place; an older bundle is replaced."""
        (self.root / MANIFEST_NAME).write_text(manifest.to_json() + "\n", encoding="utf-8")
        old = self.root.with_suffix(".old")
        if self._target.exists():
            self._target.rename(old)
        try:
            self.root.rename(self._target)
        except OSError:
            if old.exists():
                old.rename(self._target)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_bundle(target: Path) -> Iterator[BundleWriter]:
    """A writer whose folder disappears unless it was committed.

    Raises:
        OutputError: the place cannot be written, or holds something else than a bundle; also when a write fails.
    """
    try:
        refuse_to_replace(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = BundleWriter(target.resolve())
        writer.root.mkdir()
        try:
            yield writer
        finally:
            shutil.rmtree(writer.root, ignore_errors=True)
    except OSError as error:
        cure = "free some space or choose another place" if error.errno == errno.ENOSPC else "choose another folder"
        raise OutputError(f"{str(target)!r} cannot be written ({error.strerror or error}); {cure}.") from error


def refuse_to_replace(target: Path) -> None:
    """Raise `OutputError` if `target` is a file, or a folder that holds something else than a bundle."""
    if target.exists() and not target.is_dir():
        raise OutputError(f"{str(target)!r} is a file; choose another folder for the bundle.")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST_NAME).is_file():
        raise OutputError(f"{str(target)!r} holds other files than a bundle; choose another folder.")


def require_space(target: Path, needed: int) -> None:
    """Raise `OutputError` if the file system of `target` has less than `needed` bytes left."""
    place = next(parent for parent in (target.absolute(), *target.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"{str(target)!r} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free some space or choose "
            "another place."
        )
