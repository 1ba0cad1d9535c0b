"""Writing a bundle: into a temporary sibling folder that takes the bundle's name only when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import onnx_ir as ir

from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, FileInfo, Manifest
from rap_edge.runtime.bundle.pending_file import short_name
from rap_edge.runtime.checks.bounds import shown
from rap_edge.runtime.cli.interrupt import held_interrupt
from rap_edge.runtime.errors import BundleError, OutputError, SpecError

# ONNX Runtime takes three copies of a file while it reads it, and maps weights that lie beside it.
EXTERNAL_DATA_LIMIT = 256 << 20
_SMALL_TENSOR = 1024


class BundleWriter:
    """A bundle in the making; `commit` puts it in the place of the old one."""

    def __init__(self, target: Path) -> None:
        """Made by `new_bundle`."""
        self._target = target
        self.root = target.with_name(f".{short_name(target.name)}.{secrets.token_hex(4)}.part")

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
        """Write the manifest and put the folder in its place; an older bundle is replaced.

        Raises:
            OutputError: the place cannot be taken, or holds other files by now; the new bundle is kept beside it.
            BundleError: nobody could read the manifest.
        """
        text = manifest.to_json()
        Manifest.from_json(text)
        (self.root / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")
        self._flush()
        with held_interrupt():
            why = self._replace()
            if why is not None:
                kept = self._target.with_name(f"{short_name(self._target.name)}-{secrets.token_hex(4)}")
                self.root.rename(kept)
                raise OutputError(f"{str(self._target)!r} {why}; the new bundle is complete in {str(kept)!r}.")

    def _replace(self) -> str | None:
        """Take the place; why that is impossible, or None."""
        # Minutes have passed since the place was looked at.
        if why := _keep_reason(self._target):
            return why
        old = self.root.with_suffix(".old")
        try:
            if self._target.exists():
                self._target.rename(old)
            self.root.rename(self._target)
        except OSError as error:
            if old.exists():
                old.rename(self._target)
            return f"cannot be replaced ({error.strerror or error})"
        shutil.rmtree(old, ignore_errors=True)
        return None

    def _flush(self) -> None:
        """Wait until the files are on the disk: a power cut must not leave neither the old nor the new bundle."""
        for path in self.root.rglob("*"):
            if path.is_file() and os.name == "posix":
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


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
    """Raise `OutputError` unless `target` is free, an empty folder, or a bundle that holds only what it lists."""
    if why := _keep_reason(target):
        raise OutputError(f"{str(target)!r} {why}; choose another folder for the bundle.")


def _keep_reason(target: Path) -> str | None:
    """Why `target` must not be replaced by a bundle, as the rest of a sentence; None if it may be."""
    if not target.exists():
        return None
    if not target.is_dir():
        return "is a file"
    if not any(target.iterdir()):
        return None
    try:
        listed = {MANIFEST_NAME, *Bundle.open(target).manifest.files}
    except (BundleError, SpecError):
        return "holds other files than a bundle that this version reads"
    folders = {parent.as_posix() for path in listed for parent in PurePosixPath(path).parents}
    for path in target.rglob("*"):
        inside = path.relative_to(target).as_posix()
        if inside not in (folders if path.is_dir() and not path.is_symlink() else listed):
            return f"also holds {shown(inside)}, which its manifest does not list"
    return None


def require_space(target: Path, needed: int) -> None:
    """Raise `OutputError` if the file system of `target` has less than `needed` bytes left."""
    place = next(parent for parent in (target.absolute(), *target.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"{str(target)!r} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free some space or choose "
            "another place."
        )
