"""The version of NVIDIA's driver and the free memory of its GPUs, from the driver's management library (NVML).

The library is loaded when it is asked for, never at import; a machine without it is a fact, not an error.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .cuda_driver import CudaDevice
from .system_memory import system_memory

_LIBRARIES = {"win32": "nvml.dll"}
_DEFAULT_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True)
class DriverState:
    """The driver's version, such as "580.65.06", and the free bytes of its GPUs by identity, "GPU-...".

    Identities, because NVML counts all GPUs of the machine, in another order than CUDA. A GPU that shares the memory of
    the CPU is not among them.
    """

    version: str
    free_bytes: Mapping[str, int]


def driver_state(load: Callable[[str], Any] | None = None) -> DriverState | None:
    """Ask the management library; None where there is none or it does not start.

    Args:
        load: opens a shared library by name and raises OSError without it; None takes ctypes'.
    """
    default: Callable[[str], Any] = getattr(ctypes, "WinDLL", ctypes.CDLL)
    try:
        library = (load or default)(_LIBRARIES.get(sys.platform, _DEFAULT_LIBRARY))
    except OSError:
        return None
    if library.nvmlInit_v2() != 0:
        return None
    try:
        version = ctypes.create_string_buffer(80)
        if library.nvmlSystemGetDriverVersion(version, len(version)) != 0:
            return None
        count = ctypes.c_uint(0)
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        free = dict(filter(None, (_free(library, index) for index in range(count.value))))
        return DriverState(version.value.decode("ascii", errors="replace"), free)
    finally:
        library.nvmlShutdown()


def free_memory(
    state: DriverState | None,
    devices: Sequence[CudaDevice],
    memory: Callable[[], tuple[int, int] | None] = system_memory,
) -> int | None:
    """Free bytes of the GPU that engines run on, the first; None without a GPU.

    A GPU that shares the memory of the CPU has what is free for programs. Where nobody tells, it is the GPU's whole
    memory.
    """
    if not devices:
        return None
    gpu = devices[0]
    if state is not None and gpu.uuid in state.free_bytes:
        return state.free_bytes[gpu.uuid]
    if gpu.integrated and (shared := memory()) is not None:
        return min(shared[1], gpu.memory_bytes)
    return gpu.memory_bytes


def _free(library: Any, index: int) -> tuple[str, int] | None:
    handle, memory, identity = ctypes.c_void_p(), _Memory(), ctypes.create_string_buffer(96)
    told = (
        library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0
        and library.nvmlDeviceGetUUID(handle, identity, len(identity)) == 0
        and library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
    )
    return (identity.value.decode("ascii", errors="replace"), memory.free) if told else None
