"""A CUDA driver whose device memory is host memory, and a TensorRT module whose engine is a Python function."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Mapping
from enum import IntEnum
from types import SimpleNamespace

import numpy as np

from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.spec import ModelSpec


class FakeStatus(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


NEED_A_CONTEXT = ("cuEvent", "cuGraph", "cuLaunch", "cuMem", "cuModule", "cuStream")


class _Contexts(threading.local):
    """How many contexts a thread has on its stack."""

    count = 0


class FakeCudaDriver:
    """`cuda.bindings.driver`; a captured graph is the list of calls that it held back."""

    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_BLOCKING_SYNC=1, CU_EVENT_DISABLE_TIMING=2)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    CUevent_record_flags = SimpleNamespace(CU_EVENT_RECORD_DEFAULT=0, CU_EVENT_RECORD_EXTERNAL=1)
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=9
    )

    def __init__(self, kernels: ctypes.CDLL | None = None) -> None:
        """Kernels are the library of `cuda_emulation/chunk_kernels.cpp`."""
        self.kernels = kernels
        self.calls: list[str] = []
        self.arguments: dict[str, tuple] = {}
        self.handles: list[object] = []
        self.blocks: dict[int, object] = {}
        self.allocated = 0
        self.capturing: list | None = None
        self.fail_at = ""
        self.capture_delay = 0.0
        self.contexts = _Contexts()

    def submit(self, action) -> None:
        """Do it, or record it while a stream is being captured."""
        if self.capturing is None:
            action()
        else:
            self.capturing.append(action)
            time.sleep(self.capture_delay)

    def _memory(self, size: int):
        assert self.capturing is None, "a captured stream may not allocate"
        block = ctypes.create_string_buffer(size + 256)
        address = -(-ctypes.addressof(block) // 256) * 256
        # What is there at first is not to be relied on.
        ctypes.memset(address, 0xFF, size)
        self.blocks[address] = block
        return address

    def _device_memory(self, size: int):
        self.allocated += size
        return self._memory(size)

    def _copy(self, target, source, size, stream):
        self.submit(lambda: ctypes.memmove(target, source, size))

    def _clear(self, target, value, size, stream):
        self.submit(lambda: ctypes.memset(target, value, size))

    def _handle(self, thing) -> int:
        self.handles.append(thing)
        return len(self.handles) - 1

    def _kernel(self, kernel, blocks, *rest):
        name = self.handles[kernel]
        values, types = rest[-2]
        kept = [kind(value) for value, kind in zip(values, types, strict=True)]
        pointers = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(item) for item in kept))

        def run(kept=kept):
            assert self.kernels.launch(name, blocks, pointers), name

        self.submit(run)

    def _use(self, contexts: int) -> None:
        self.contexts.count = contexts

    def _free(self, address):
        del self.blocks[address]

    def _end(self, stream):
        graph, self.capturing = self.capturing, None
        return self._handle(graph)

    def _launch(self, graph, stream):
        for action in self.handles[graph]:
            action()

    def __getattr__(self, name: str):
        if not name.startswith("cu"):
            raise AttributeError(name)
        actions = {
            "cuMemAlloc": self._device_memory,
            "cuMemAllocHost": self._memory,
            "cuMemFree": self._free,
            "cuMemFreeHost": self._free,
            "cuMemcpyHtoDAsync": self._copy,
            "cuMemcpyDtoHAsync": self._copy,
            "cuMemcpyDtoDAsync": self._copy,
            "cuMemsetD8Async": self._clear,
            "cuModuleGetFunction": lambda module, name: self._handle(name),
            "cuLaunchKernel": self._kernel,
            "cuDeviceGetAttribute": lambda attribute, device: attribute,
            "cuStreamBeginCapture": lambda stream, mode: setattr(self, "capturing", []),
            "cuStreamEndCapture": self._end,
            "cuGraphInstantiate": lambda graph, flags: graph,
            "cuGraphLaunch": self._launch,
            "cuStreamCreate": lambda flags: self._handle("stream"),
            "cuCtxSetCurrent": lambda context: self._use(max(self.contexts.count, 1)),
            "cuCtxPushCurrent": lambda context: self._use(self.contexts.count + 1),
            "cuCtxPopCurrent": lambda: self._use(self.contexts.count - 1),
        }

        def call(*arguments):
            self.calls.append(name)
            self.arguments[name] = arguments
            if name.startswith(NEED_A_CONTEXT) and not self.contexts.count:
                return (FakeStatus.CUDA_ERROR_INVALID_CONTEXT, None)
            if name == self.fail_at:
                if name == "cuStreamEndCapture":
                    self.capturing = None
                return (FakeStatus.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None)
            return FakeStatus.CUDA_SUCCESS, actions.get(name, lambda *a: 0)(*arguments)

        return call


class FakeTensorRt:
    """`tensorrt` with one engine: every output is filled from the inputs by `body`."""

    __name__, __version__ = "tensorrt", "11.4.0.106"

    class ILogger:
        pass

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
    auxiliary_streams = 0

    def __init__(
        self, driver: FakeCudaDriver, tensors, body, *, refuse: bool = False, outputs=lambda inputs: {}
    ) -> None:
        """Tensors are (name, is_input, dtype, shape); `outputs` gives free shapes of outputs from those of inputs."""
        self.driver, self.tensors, self.body, self.refuse, self.outputs = driver, tensors, body, refuse, outputs
        self.runtimes: list = []
        self.cache = FakeCache()

    def Runtime(self, logger):  # noqa: N802
        runtime = SimpleNamespace(engine_host_code_allowed=None, deserialize_cuda_engine=self._deserialize)
        self.runtimes.append((runtime, logger))
        return runtime

    def _deserialize(self, data):
        if self.refuse:
            severity = SimpleNamespace(name="ERROR")
            self.runtimes[-1][1].log(severity, "Platform mismatch.\n")
            return None
        return FakeEngine(self)

    def context(self) -> FakeContext:
        return FakeContext(self)


class FakeTensorRtx(FakeTensorRt):
    """`tensorrt_rtx`, which compiles late: it has a cache of kernels, and contexts that know when they are done."""

    __name__, __version__ = "tensorrt_rtx", "1.7.1.116"

    class IRuntimeCache:
        pass

    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER=1)

    def context(self) -> FakeContext:
        return FakeRtxContext(self)


def module_of(driver: FakeCudaDriver, graph: GraphInfo, spec: ModelSpec, body) -> FakeTensorRt:
    """A module whose one engine is a graph of the contract."""
    types = {"float32": "FLOAT", "uint8": "UINT8"}
    tensors = [
        (t.name, t in graph.inputs, types[t.dtype], tuple(-1 if isinstance(d, str) else d for d in t.shape))
        for t in (*graph.inputs, *graph.outputs)
    ]

    def outputs(inputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        if "frames" not in inputs:
            return {}
        latents = (inputs["frames"][0] - 1) // spec.temporal_compression + 1
        return {"latents": (1, spec.latent_channels, latents, *spec.latent_size)}

    return FakeTensorRtx(driver, tensors, body, outputs=outputs)


class FakeCache:
    def __init__(self) -> None:
        self.content: bytes | None = b"kernels"
        self.accepts = True

    def serialize(self) -> bytes | None:
        return self.content

    def deserialize(self, data: bytes) -> bool:
        self.loaded = data
        return self.accepts


class FakeEngine:
    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module
        self.num_io_tensors = len(module.tensors)
        self.device_memory_size_v2 = 1000
        self.num_aux_streams = module.auxiliary_streams
        self.contexts: list[FakeContext] = []

    def _find(self, name: str):
        return next(item for item in self._module.tensors if item[0] == name)

    def get_tensor_name(self, index: int) -> str:
        return self._module.tensors[index][0]

    def get_tensor_mode(self, name: str):
        return SimpleNamespace(name="INPUT" if self._find(name)[1] else "OUTPUT")

    def get_tensor_dtype(self, name: str):
        return SimpleNamespace(name=self._find(name)[2])

    def get_tensor_shape(self, name: str):
        return self._find(name)[3]

    def create_runtime_config(self):
        cache = self._module.cache
        return SimpleNamespace(
            create_runtime_cache=lambda: cache,
            set_runtime_cache=lambda c: True,
            get_runtime_cache=lambda: cache,
            set_execution_context_allocation_strategy=lambda strategy: None,
        )

    def create_execution_context(self, config=None):
        context = self._module.context()
        # Without a configuration TensorRT allocates by itself.
        context.arena = () if config else ("its own",)
        self.contexts.append(context)
        return context


class FakeContext:
    def __init__(self, module: FakeTensorRt) -> None:
        self._module, self.enqueued = module, 0
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple] = {}

    def set_input_shape(self, name, shape) -> bool:
        known = next(item[3] for item in self._module.tensors if item[0] == name)
        self._shapes[name] = shape
        return all(size in (have, -1) or have == -1 for size, have in zip(shape, known, strict=True))

    def set_tensor_address(self, name, address) -> bool:
        self._addresses[name] = address
        return address % 256 == 0

    def set_device_memory(self, address, size) -> None:
        assert address % 256 == 0
        self.arena = (address, size)

    def set_aux_streams(self, streams) -> None:
        self.auxiliary = streams

    def execute_async_v3(self, stream) -> bool:
        assert self.arena, "a plan that requires memory of the user has none"
        self.enqueued += 1
        self._module.driver.submit(self._run)
        return True

    def _run(self) -> None:
        arrays = {}
        free = self._module.outputs(self._shapes)
        for name, _, dtype, shape in self._module.tensors:
            kind = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8}[dtype]
            shape = free.get(name, self._shapes.get(name, shape))
            count = int(np.prod(shape)) * np.dtype(kind).itemsize
            block = (ctypes.c_ubyte * count).from_address(self._addresses[name])
            arrays[name] = np.frombuffer(block, kind).reshape(shape)
        self._module.body(arrays)


class FakeRtxContext(FakeContext):
    capturable_after = 1

    def is_stream_capturable(self, stream) -> bool:
        return self.enqueued >= self.capturable_after
