"""The kernels of `kernels.cu`: compiled by NVRTC for the GPU that is there, loaded, and launched by name."""

from __future__ import annotations

import ctypes
import weakref
from importlib import import_module, resources
from typing import Any

from ..cuda_memory import INSTALL, Cuda, CudaStream
from ..errors import EngineError, first_line

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
    "color_statistics",
    "color_match",
)
THREADS = 256
_MAX_BLOCKS = 4096


class Kernels:
    """The kernels, loaded into one context and shared by all its sessions."""

    def __init__(self, cuda: Cuda, binary: bytes) -> None:
        """Load what `compile_kernels` gave; raises `EngineError` if the driver refuses it."""
        module = cuda.call("cuModuleLoadData", binary)
        weakref.finalize(self, cuda.driver.cuModuleUnload, module)
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
    compiler = _nvrtc()
    source = resources.files(__package__).joinpath("kernels.cu").read_bytes()
    architecture = f"--gpu-architecture=sm_{compute_capability.replace('.', '')}"
    try:
        program = _value(compiler.nvrtcCreateProgram(source, b"kernels.cu", 0, [], []))
    except RuntimeError as error:  # the bindings' own, when they find no library
        raise EngineError(f"NVRTC cannot be loaded ({first_line(error)}); run {INSTALL}.") from None
    try:
        options = [architecture.encode(), b"--std=c++17"]
        (status,) = compiler.nvrtcCompileProgram(program, len(options), options)
        if int(status) != 0:
            raise EngineError(
                f"NVRTC cannot compile for compute capability {compute_capability} ({_log(compiler, program)}); "
                "upgrade nvidia-cuda-nvrtc."
            )
        binary = bytearray(_value(compiler.nvrtcGetCUBINSize(program)))
        _value(compiler.nvrtcGetCUBIN(program, binary))
    finally:
        compiler.nvrtcDestroyProgram(program)
    return bytes(binary)


def _nvrtc() -> Any:
    try:
        return import_module("cuda.bindings.nvrtc")
    except ImportError:
        raise EngineError(
            f"GPU engines need the packages 'cuda-bindings' and 'nvidia-cuda-nvrtc'; run {INSTALL}."
        ) from None


def _log(compiler: Any, program: Any) -> str:
    log = bytearray(_value(compiler.nvrtcGetProgramLogSize(program)))
    _value(compiler.nvrtcGetProgramLog(program, log))
    lines = bytes(log).rstrip(b"\0").decode(errors="replace").split("\n")
    return lines[0].strip().rstrip(".")[:200]


def _value(answer: tuple[Any, ...]) -> Any:
    status, *values = answer
    if int(status) != 0:
        raise EngineError(f"NVRTC failed ({getattr(status, 'name', status)}); reinstall nvidia-cuda-nvrtc.")
    return values[0] if values else None
