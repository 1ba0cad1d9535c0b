"""The CUDA driver and its GPUs, asked through the driver's own library, without any GPU package.

The library is loaded when it is asked for, never at import; a machine without it is a fact, not an error.
"""

from __future__ import annotations

import ctypes
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LIBRARIES = {"win32": ("nvcuda.dll",)}
_DEFAULT_LIBRARIES = ("libcuda.so.1", "libcuda.so")
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, and _INTEGRATED.
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
_ERRORS = {
    34: "the driver found is a stub",
    35: "the driver is older than the library",
    100: "no GPU is visible",
    101: "a GPU does not answer",
    803: "the driver and its library differ in version",
    999: "the driver gave an unknown error",
}


@dataclass(frozen=True)
class CudaDevice:
    """One GPU: its ordinal, name, compute capability such as "8.9", memory in bytes, and identity "GPU-...".

    `integrated` says that it shares the memory of the CPU, as on a Jetson.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    uuid: str = ""
    integrated: bool = False


@dataclass(frozen=True)
class CudaDriver:
    """What the driver says.

    Attributes:
        version: newest CUDA version that the driver runs, "13.0"; None without a driver.
        devices: the GPUs that this process may use.
        problem: why there are none, "" if there are.
    """

    version: str | None
    devices: tuple[CudaDevice, ...]
    problem: str


def query_driver(load: Callable[[str], Any] | None = None) -> CudaDriver:
    """Ask the driver for its version and GPUs; never raises for want of either.

    Args:
        load: opens a shared library by name and raises OSError without it; None takes ctypes'.
    """
    default: Callable[[str], Any] = getattr(ctypes, "WinDLL", ctypes.CDLL)
    library = _open(load or default)
    if library is None:
        return CudaDriver(None, (), "no CUDA driver is installed")
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value < 1000:
        return CudaDriver(None, (), "the CUDA driver does not tell its version")
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    if status := library.cuInit(0):
        return CudaDriver(version, (), _reason(status))
    count = ctypes.c_int(0)
    if status := library.cuDeviceGetCount(ctypes.byref(count)):
        return CudaDriver(version, (), _reason(status))
    devices = tuple(_device(library, index) for index in range(count.value))
    return CudaDriver(version, devices, "" if devices else "no GPU is visible")


def _open(load: Callable[[str], Any]) -> Any:
    for name in _LIBRARIES.get(sys.platform, _DEFAULT_LIBRARIES):
        try:
            return load(name)
        except OSError:
            continue
    return None


def _device(library: Any, index: int) -> CudaDevice:
    handle, major, minor, integrated = (ctypes.c_int(0) for _ in range(4))
    memory, name = ctypes.c_size_t(0), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(integrated), _INTEGRATED, handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    text = name.value.decode("utf-8", errors="replace")
    return CudaDevice(
        index=index,
        name=text,
        compute_capability=f"{major.value}.{minor.value}",
        memory_bytes=memory.value,
        uuid=_identity(library, handle),
        integrated=bool(integrated.value),
    )


def _identity(library: Any, handle: ctypes.c_int) -> str:
    identity = ctypes.create_string_buffer(16)
    if library.cuDeviceGetUuid_v2(identity, handle) != 0:
        return ""
    return f"GPU-{uuid.UUID(bytes=identity.raw)}"


def _reason(status: int) -> str:
    return _ERRORS.get(status, f"the driver refuses to start (CUDA error {status})")
