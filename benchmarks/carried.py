"""What a machine without a network was given: archives in pieces, libraries, and this repository without an install.

In: the folder that `make gpu-prepare` laid out, in one transfer or in several. Out: where its parts can be imported
from. Only the standard library is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import lzma
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gpu_steps import ROOT, Step, is_here

PACKAGES = ("runtime", "models", "export", "calibration", "plugins")
# It outlives a call, so that the next one finds what came before.
UNPACKED = Path("/tmp/rap-edge-carried")
# Archives, each named after the module that it brings.
MODULES = ("onnxruntime", "tensorrt_rtx")
LIBRARIES = ("fused.so", "four_warps.so", "warp_products.so")


class Carried:
    """The folder, and what has been unpacked of it."""

    def __init__(self, folder: Path, unpacked: Path = UNPACKED) -> None:
        """Make this repository importable where it is not installed."""
        self._folder, self._unpacked = folder, unpacked
        self._paths: list[str] = []
        if importlib.util.find_spec("rap_edge") is None:
            self._paths.append(str(_site(unpacked / "site")))
            sys.path[:0] = self._paths

    def unpack(self) -> Iterator[str]:
        """Unpack every archive whose pieces are all here, now or from an earlier call; says so, line by line."""
        pieces = self._unpacked / "pieces"
        for part in sorted(self._folder.glob("p*/*.part.*")):
            pieces.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, pieces / part.name)
        for listed in sorted(self._folder.glob("a/*.sha256")):
            archive = listed.stem
            if (self._unpacked / archive).is_dir():
                continue
            wanted = dict(reversed(line.split(maxsplit=1)) for line in listed.read_text().splitlines())
            if missing := [name for name in wanted if not _is_whole(pieces / name, wanted[name])]:
                yield f"{archive}: {len(missing)} of {len(wanted)} pieces are not here yet"
                continue
            _extract([pieces / name for name in wanted], self._unpacked / archive)
            yield f"{archive} is unpacked"

    def libraries(self) -> list[str]:
        """Builds of the fused attention, the one that ships first."""
        return [str(path) for name in LIBRARIES if (path := self._folder / "a" / name).is_file()]

    def has(self, need: str) -> bool:
        """Whether a step's need is here or was carried."""
        name = need.removeprefix("import ")
        return is_here(need) or (name in MODULES and (self._unpacked / name).is_dir())

    def environment(self, step: Step) -> Mapping[str, str]:
        """The variables of a step's process: where it imports from, and CUDA's libraries for what was carried."""
        paths = [*self._paths, str(ROOT / "benchmarks"), str(ROOT / "tests")]
        libraries: list[str] = []
        for module in MODULES:
            found = self._unpacked / module
            if found.is_dir() and f"import {module}" in step.needs and not is_here(f"import {module}"):
                paths.insert(0, str(found))
                libraries = [str(path) for path in _cuda_libraries()]
        more = {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}
        if libraries:
            more["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        return os.environ | more | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _site(folder: Path) -> Path:
    """A folder from which the packages of this repository are imported as an installation's are."""
    package = folder / "rap_edge"
    package.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        link = package / name
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT / name)
    return folder


def _is_whole(piece: Path, sha256: str) -> bool:
    return piece.is_file() and hashlib.sha256(piece.read_bytes()).hexdigest() == sha256


def _extract(pieces: list[Path], target: Path) -> None:
    whole = target.with_suffix(".tar.xz")
    with whole.open("wb") as stream:
        for piece in pieces:
            stream.write(piece.read_bytes())
    half = target.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    with lzma.open(whole) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(half, filter="tar")
    half.rename(target)
    whole.unlink()


def _cuda_libraries() -> list[Path]:
    """Folders of CUDA's own packages."""
    found = importlib.util.find_spec("nvidia")
    roots = [] if found is None else list(found.submodule_search_locations or [])
    return [path for root in roots for path in sorted(Path(root).glob("*/lib"))]
