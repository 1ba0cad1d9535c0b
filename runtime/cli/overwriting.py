"""Outputs that are also inputs: found before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST_NAME
from ..errors import OutputError


def refuse_to_overwrite(
    outputs: Iterable[str | Path | None], bundle: Bundle, inputs: Iterable[str | Path | int | None] = ()
) -> None:
    """Refuse outputs that would replace what a run reads, or each other; links are seen through.

    Args:
        outputs: files that will be written; None is left out.
        bundle: none of its files may be an output.
        inputs: further files that are read, by name or open descriptor; None is left out.

    Raises:
        OutputError: names the output.
    """
    read = [bundle.root / MANIFEST_NAME, *(bundle.root / inside for inside in bundle.manifest.files), *inputs]
    taken = {identity for file in read if file is not None for identity in _identities(file)}
    for output in outputs:
        if output is None:
            continue
        found = _identities(output)
        if taken & found:
            raise OutputError(f"{str(output)!r} is also another file of this run; choose another name for the output.")
        taken |= found


def _identities(file: str | Path | int) -> set[object]:
    """What two names of one file have in common: its place on the disk, or the path where there is no file yet."""
    names: set[object] = set() if isinstance(file, int) else {os.path.normcase(os.path.realpath(file))}
    try:
        about = os.stat(file)
    except (OSError, ValueError):
        return names
    # Some file systems give no inode.
    return names | {(about.st_dev, about.st_ino)} if about.st_ino else names
