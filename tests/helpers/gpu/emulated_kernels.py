"""The chunk's kernels, compiled for the CPU."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cuda_emulation" / "chunk_kernels.cpp"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    flags = ["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["g++", *flags, str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
