"""A CUDA context, streams, memory and captured work, through `cuda.bindings`, which is imported when it is needed.

Every call is checked: a failure is an `EngineError` with the call's name and the driver's own name of the error.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import EngineError, first_line

INSTALL = "pip install 'rap-edge[cuda]'"


class Cuda:
    """The primary context of one GPU; every object that is made from it keeps it alive.

    Attributes:
        driver, context: the bindings' module, and the context.
        capturing: held while work is captured: the garbage collector, which is off meanwhile, is every thread's.
    """

    def __init__(self, driver: Any = None, index: int = 0) -> None:
        """Open GPU number `index`, and make its context current in the calling thread.

        Args:
            driver: `cuda.bindings.driver`; None imports it.
            index: ordinal of the GPU.

        Raises:
            EngineError: the bindings are missing, or the driver refuses.
        """
        self.driver = _bindings() if driver is None else driver
        self._pinned: set[int] = set()
        self.capturing = threading.Lock()
        self.call("cuInit", 0)
        self._device = self.call("cuDeviceGet", index)
        self.context = self.call("cuDevicePrimaryCtxRetain", self._device)
        when_gone(self, self.driver.cuDevicePrimaryCtxRelease, self._device)
        self.activate()

    @property
    def compute_capability(self) -> str:
        """The GPU's, such as "8.9"."""
        attribute = self.driver.CUdevice_attribute
        major = self.call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device)
        minor = self.call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device)
        return f"{major}.{minor}"

    def activate(self) -> None:
        """Make the context current in the calling thread."""
        self.call("cuCtxSetCurrent", self.context)

    def stream(self) -> CudaStream:
        """A new stream that does not wait for the default one."""
        return CudaStream(self, self.call("cuStreamCreate", self.driver.CUstream_flags.CU_STREAM_NON_BLOCKING))

    def event(self) -> CudaEvent:
        """A point in a stream's work that can be timed."""
        return CudaEvent(self, self.call("cuEventCreate", 0))

    def waypoint(self) -> CudaEvent:
        """A point in a stream's work that a thread can wait for asleep, and that cannot be timed."""
        flags = self.driver.CUevent_flags
        return CudaEvent(self, self.call("cuEventCreate", flags.CU_EVENT_BLOCKING_SYNC | flags.CU_EVENT_DISABLE_TIMING))

    def device_memory(self, size: int) -> DeviceMemory:
        """`size` bytes on the GPU, aligned to 256 bytes, of any content."""
        return DeviceMemory(self, int(self.call("cuMemAlloc", size)))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A zeroed array in page-locked host memory, which copies asynchronously and can be captured."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self.call("cuMemAllocHost", max(size, 1)))
        self._pinned.add(address)
        array = _array_at(address, shape, dtype, self._free_pinned)
        array[...] = 0
        return array

    def _free_pinned(self, address: int) -> None:
        self._pinned.discard(address)
        free(self, "cuMemFreeHost", address)

    def is_pinned(self, array: NDArray[Any]) -> bool:
        """Whether the array lies in page-locked memory that this context allocated."""
        return array.ctypes.data in self._pinned

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of the driver's function `name`; raises `EngineError` unless it succeeds."""
        try:
            status, *values = getattr(self.driver, name)(*arguments)
        except RuntimeError as error:  # the bindings' own, when they find no driver library
            raise EngineError(f"The CUDA driver cannot be used ({first_line(error)}); install the driver.") from None
        if int(status) != 0:
            label = getattr(status, "name", str(status))
            raise EngineError(f"The GPU failed in {name} ({label}); free GPU memory, or restart the program.")
        return values[0] if values else None


class DeviceMemory:
    """Memory on the GPU, freed with its last reference."""

    def __init__(self, cuda: Cuda, address: int) -> None:
        """Made by `Cuda.device_memory`."""
        self.address = address
        when_gone(self, free, cuda, "cuMemFree", address)


class PinnedPool:
    """Page-locked arrays of one shape, each lent again once nobody holds it, or a view of it, any more."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: DTypeLike, count: int) -> None:
        """Allocate `count` arrays; raises `EngineError` if there is no memory."""
        self._arrays = [cuda.pinned(shape, dtype) for _ in range(count)]
        self._free = [array.ctypes.data for array in self._arrays]

    def lend(self) -> NDArray[Any] | None:
        """An array of any content; None while all are held."""
        if not self._free:
            return None
        model = self._arrays[0]
        # The pool lives until the last array is back.
        return _array_at(self._free.pop(), model.shape, model.dtype, self._take_back)

    def _take_back(self, address: int) -> None:
        self._free.append(address)


class CudaEvent:
    """A point in a stream's work; `CudaStream.record` sets it."""

    def __init__(self, cuda: Cuda, handle: Any) -> None:
        """Made by `Cuda.event`."""
        self._cuda, self.handle = cuda, handle
        when_gone(self, free, cuda, "cuEventDestroy", handle)

    def seconds_since(self, earlier: CudaEvent) -> float:
        """Time on the GPU between two events that have passed."""
        return float(self._cuda.call("cuEventElapsedTime", earlier.handle, self.handle)) / 1000.0

    def wait(self) -> None:
        """Wait until the work before it is done."""
        self._cuda.call("cuEventSynchronize", self.handle)


class CudaStream:
    """Work in order on the GPU. Addresses are numbers."""

    def __init__(self, cuda: Cuda, handle: Any) -> None:
        """Made by `Cuda.stream`."""
        self._cuda, self._handle = cuda, handle
        self._capturing = False
        self._end = cuda.waypoint()
        when_gone(self, free, cuda, "cuStreamDestroy", handle)

    @property
    def handle(self) -> int:
        """The `CUstream` as a number, as TensorRT takes it."""
        return int(self._handle)

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU."""
        self._cuda.call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, self._handle)

    def download(self, target: NDArray[Any], source: int) -> None:
        """Copy from the GPU into a contiguous array."""
        self._cuda.call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, self._handle)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes from one place on the GPU to another that does not overlap it."""
        self._cuda.call("cuMemcpyDtoDAsync", target, source, size, self._handle)

    def clear(self, target: int, size: int) -> None:
        """Set `size` bytes on the GPU to zero."""
        self._cuda.call("cuMemsetD8Async", target, 0, size, self._handle)

    def record(self, event: CudaEvent) -> None:
        """Set `event` when all work so far is done; in captured work, at every replay."""
        flags = self._cuda.driver.CUevent_record_flags
        kind = flags.CU_EVENT_RECORD_EXTERNAL if self._capturing else flags.CU_EVENT_RECORD_DEFAULT
        self._cuda.call("cuEventRecordWithFlags", event.handle, self._handle, int(kind))

    def launch(self, kernel: Any, blocks: int, threads: int, values: tuple[Any, ...], types: tuple[Any, ...]) -> None:
        """Launch a kernel with `values` of the ctypes `types`."""
        self._cuda.call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, self._handle, (values, types), 0)

    def synchronize(self) -> None:
        """Wait until all work is done, asleep: the processor's cores have videos to encode."""
        self.record(self._end)
        self._end.wait()

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """What `work` puts into this stream, recorded instead of done, and ready to be replayed.

        Raises:
            EngineError: it cannot be captured.
        """
        with self._cuda.capturing:
            return self._capture(work)

    def _capture(self, work: Callable[[], None]) -> CudaGraph:
        mode = self._cuda.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._cuda.call("cuStreamBeginCapture", self._handle, mode)
        self._capturing = True
        collecting = gc.isenabled()
        # Memory that a collection gives back meanwhile would break the capture.
        gc.disable()
        try:
            work()
        except BaseException:
            self._abandon_capture()
            raise
        finally:
            self._capturing = False
            if collecting:
                gc.enable()
        graph = self._cuda.call("cuStreamEndCapture", self._handle)
        try:
            executable = self._cuda.call("cuGraphInstantiate", graph, 0)
        finally:
            self._cuda.call("cuGraphDestroy", graph)
        captured = CudaGraph(self._cuda, executable)
        self._cuda.call("cuGraphUpload", executable, self._handle)
        return captured

    def _abandon_capture(self) -> None:
        """End a capture whose work has failed; the failure is the caller's, whatever the driver says of it."""
        status, graph = self._cuda.driver.cuStreamEndCapture(self._handle)
        if int(status) == 0:
            self._cuda.driver.cuGraphDestroy(graph)


class CudaGraph:
    """Captured work."""

    def __init__(self, cuda: Cuda, executable: Any) -> None:
        """Made by `CudaStream.capture`."""
        self._cuda, self._executable = cuda, executable
        when_gone(self, free, cuda, "cuGraphExecDestroy", executable)

    def launch(self, stream: CudaStream) -> None:
        """Do the work again, in `stream`."""
        self._cuda.call("cuGraphLaunch", self._executable, stream._handle)


def _array_at(address: int, shape: tuple[int, ...], dtype: DTypeLike, release: Callable[[int], None]) -> NDArray[Any]:
    """An array in memory of the host; `release` gets the address once nobody holds the array, or a view of it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = (ctypes.c_ubyte * size).from_address(address)
    # The array holds the block.
    when_gone(block, release, address)
    array: NDArray[Any] = np.frombuffer(memoryview(block), dtype=dtype).reshape(shape)
    return array


def when_gone(owner: object, release: Callable[..., object], *arguments: object) -> None:
    """Call `release` once nobody holds `owner`.

    Not when the program ends: the driver takes everything back by itself then, and other libraries may still use it.
    """
    weakref.finalize(owner, release, *arguments).atexit = False


def free(cuda: Cuda, function: str, thing: Any) -> None:
    """Give `thing` back to the driver by its `function`, in whatever thread collects garbage.

    That thread may have no context, or one of another library, which it keeps. A failure leaks, and that is all.
    """
    cuda.driver.cuCtxPushCurrent(cuda.context)
    getattr(cuda.driver, function)(thing)
    cuda.driver.cuCtxPopCurrent()


def _bindings() -> Any:
    try:
        return import_module("cuda.bindings.driver")
    except ImportError:
        raise EngineError(
            f"GPU engines need the package 'cuda-bindings', which is not installed; run {INSTALL}."
        ) from None
