"""The fused attention's kernel source, compiled for the CPU over an emulator of the instructions that it uses."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from fused_attention import Counts, Params
from helpers.places import ROOT

EMULATION = Path(__file__).parent / "cuda_emulation"
SOURCES = ROOT / "plugins"


class Device(ctypes.Structure):
    """`rap::Device`: compute capability without the dot, multiprocessors, bytes of shared memory for a block."""

    _fields_ = tuple((name, ctypes.c_int32) for name in ("capability", "multiprocessors", "shared_bytes"))


class Launch(ctypes.Structure):
    """What the library would launch."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("warpgroups", "warps", "shared_bytes", "slots", "tiles_per_block")),
        ("grid", ctypes.c_uint32 * 3),
    )


A100 = Device(80, 108, 163 << 10)
H100 = Device(90, 132, 227 << 10)
# Blocks of an H100 that is small, so that few of them keep it busy.
SMALL_HOPPER = Device(90, 1, 227 << 10)
# Keys of 128 channels do not stay in its shared memory.
NARROW_HOPPER = Device(90, 1, 100 << 10)


def build(folder: Path, changes: Mapping[str, str] | None = None) -> ctypes.CDLL:
    """Compile the emulation; with other texts of some of the kernel's files, and then for fp16 and width 128 alone."""
    if changes is not None:
        # Their neighbours include what lies beside them.
        shutil.copytree(SOURCES / "src", folder, dirs_exist_ok=True)
        for name, text in changes.items():
            (folder / name).write_text(text)
    library = folder / "emulated.so"
    includes = [f"-I{folder}", f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}"]
    sources = [EMULATION / "hybrid_attention.cpp", SOURCES / "src" / "launch_plan.cpp"]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
    flags += ["-DRAP_ONE_KIND"] if changes is not None else []
    done = subprocess.run(
        ["g++", *flags, *includes, *map(str, sources), "-o", str(library)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = ctypes.CDLL(str(library))
    loaded.emulate.argtypes = [ctypes.POINTER(Params), ctypes.POINTER(Device), ctypes.c_uint64, ctypes.POINTER(Counts)]
    loaded.plan_launch.argtypes = [ctypes.POINTER(Params), ctypes.POINTER(Device), ctypes.POINTER(Launch)]
    loaded.emulate.restype = loaded.emulate_in_plan.restype = ctypes.c_char_p
    return loaded
