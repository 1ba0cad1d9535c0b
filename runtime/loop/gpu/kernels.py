"""The kernels of `kernels.cu`: compiled by NVRTC for the GPU that is there, loaded, and launched by name."""

from __future__ import annotations

import ctypes
from importlib import resources
from typing import Any

from ...machine.cuda import Cuda, CudaStream, free, when_gone
from ...machine.nvrtc import compile_binary

KERNELS = (
    "clear_flags",
    "set_value",
    "check_finite",
    "gather_windows",
    "normal_noise",
    "carry_noisy",
    "carry_clean",
    "guide",
    "euler_step",
    "renoise_step",
    "to_pixels",
    "color_statistics",
    "color_match",
    "to_frames",
)
THREADS = 256
_MAX_BLOCKS = 4096


class Kernels:
    """The kernels, loaded into one context and shared by all its sessions."""

    def __init__(self, cuda: Cuda, binary: bytes) -> None:
        """Load what `compile_kernels` gave; raises `EngineError` if the driver refuses it."""
        module = cuda.call("cuModuleLoadData", binary)
        when_gone(self, free, cuda, "cuModuleUnload", module)
        self._functions = {name: cuda.call("cuModuleGetFunction", module, name.encode()) for name in KERNELS}

    def launch(
        self, stream: CudaStream, name: str, items: int, values: tuple[float, ...], types: tuple[Any, ...], blocks: int
    ) -> None:
        """Launch kernel `name` over `items` values, or with exactly `blocks` blocks if that is not 0.

        Args:
            stream: where.
            name: one of `KERNELS`.
            items: what the kernel strides over.
            values: its arguments: addresses, words, floats.
            types: their ctypes.
            blocks: see above.
        """
        stream.launch(self._functions[name], blocks or min(-(-items // THREADS), _MAX_BLOCKS), THREADS, values, types)


POINTER, WORD, FLOAT = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_float


def compile_kernels(compute_capability: str) -> bytes:
    """Machine code of the kernels for GPUs of one compute capability; needs no GPU.

    Args:
        compute_capability: such as "8.9".

    Raises:
        EngineError: NVRTC is not installed or does not know the GPU.
    """
    source = resources.files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")
    return compile_binary(source, "kernels.cu", compute_capability)
