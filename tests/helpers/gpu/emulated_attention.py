"""The fused attention's kernel source, compiled for the CPU over an emulator of the instructions that it uses."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

from fused_attention import Counts, Params
from helpers.places import ROOT

EMULATION = Path(__file__).parent / "cuda_emulation"
SOURCES = ROOT / "plugins"
KERNEL = "hybrid_attention_kernel.cuh"


def build(folder: Path, kernel: str | None = None) -> ctypes.CDLL:
    """Compile the emulation, of another kernel source if given."""
    if kernel is not None:
        # Its neighbours include what lies beside them.
        shutil.copytree(SOURCES / "src", folder, dirs_exist_ok=True)
        (folder / KERNEL).write_text(kernel)
    library = folder / "emulated.so"
    includes = [f"-I{folder}", f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}"]
    sources = [EMULATION / "hybrid_attention.cpp", SOURCES / "src" / "launch_plan.cpp"]
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
    done = subprocess.run(
        ["g++", *flags, *includes, *map(str, sources), "-o", str(library)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = ctypes.CDLL(str(library))
    loaded.emulate.argtypes = [ctypes.POINTER(Params), ctypes.c_uint64, ctypes.POINTER(Counts)]
    loaded.emulate.restype = loaded.emulate_in_plan.restype = ctypes.c_char_p
    return loaded
