"""Reads what `nvcc -Xptxas=-v` says about every kernel, and finds that compiler."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KernelUse:
    """What one kernel takes on one architecture."""

    name: str
    architecture: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>sm_\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def kernels(report: str) -> list[KernelUse]:
    """Every kernel of the report, in order."""
    found = []
    for match in _KERNEL.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        found.append(
            KernelUse(
                name=match["name"],
                architecture=match["architecture"],
                registers=int(match["registers"]),
                shared_bytes=int(shared[1]) if shared else 0,
                stack_bytes=int(match["stack"]),
                spill_bytes=int(match["stores"]) + int(match["loads"]),
            )
        )
    return found


def find_nvcc() -> str | None:
    """CUDA 13's compiler: of this environment's wheels, else of the PATH."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (nvcc := Path(folder) / "cu13" / "bin" / "nvcc").is_file():
            return str(nvcc)
    return shutil.which("nvcc")
