"""The TensorRT backend: one file for plans of `tensorrt_rtx`, `tensorrt` and `tensorrt_lean`.

`load` imports the module and deserialises; `prepare` allocates and runs once, which compiles kernels where the module
does that late; `run` copies in, enqueues, copies out and waits, without allocating; `capture` freezes those into a CUDA
graph.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.contract import check_signature
from ..bundle.manifest import EngineInfo, GraphInfo, TensorInfo
from ..checks.needs import Need
from ..checks.protobuf_wire import Content
from ..errors import BundleError, EngineError, PreflightError
from ..machine.cuda import Cuda, CudaGraph, CudaStream, DeviceMemory
from ..machine.tensorrt_modules import load_module, log_of
from .backend import Loaded, OnGpu, Request
from .interface import Array, allocate, resolved_shape
from .kernel_cache import RuntimeCacheFile, cache_path
from .preflight import check_engine, damaged, engine_needs, fitting_module

RUNS_GRAPHS = False

# numpy's names of TensorRT's types.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
}


@dataclass(frozen=True)
class TensorRtContext:
    """An execution context, and what it works in beside the main stream and must not outlive."""

    handle: Any
    auxiliary: tuple[CudaStream, ...]


class TensorRtExecution:
    """One session's buffers, stream and execution context of a shared `TensorRtEngine`."""

    def __init__(self, engine: TensorRtEngine, buffers: dict[str, Array], pinned: frozenset[str]) -> None:
        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)
        self._engine, self._pinned = engine, pinned
        self._inputs = tuple(tensor.name for tensor in engine.graph.inputs)
        self._outputs = tuple(tensor.name for tensor in engine.graph.outputs)
        self._cuda = engine.cuda
        self._stream = self._cuda.stream()
        self._activations = self._cuda.device_memory(max(engine.activation_bytes, 1))
        self._context = engine.new_context(self._activations)
        self._memory = {name: self._cuda.device_memory(max(array.nbytes, 1)) for name, array in buffers.items()}
        self._graph: CudaGraph | None = None
        self._captured: tuple[Any, ...] = ()
        addresses = {name: memory.address for name, memory in self._memory.items()}
        engine.set_tensors(self._context, {name: buffers[name].shape for name in self._inputs}, addresses)
        # The first run compiles and loads kernels: seconds that must not fall into the first chunk.
        self._work()
        self._stream.synchronize()

    def run(self) -> None:
        """Copy in, compute, copy out and wait; raises `EngineError` if the GPU fails."""
        self._cuda.activate()
        if self._graph is not None and self._captured == self._bound():
            self._graph.launch(self._stream)
        else:
            self._work()
        self._stream.synchronize()

    def capture(self) -> str:
        """Freeze the work into a CUDA graph; returns "" or the reason why it runs without."""
        if loose := [name for name in self.buffers if name not in self._pinned]:
            return f"the buffer of {loose[0]!r} is not page-locked, so its copy cannot be captured"
        self._cuda.activate()
        if not self._engine.capturable(self._context, self._stream):
            # Kernels may have been compiled beside the first run, to be used from the next one on.
            self._work()
            self._stream.synchronize()
        if not self._engine.capturable(self._context, self._stream):
            return f"TensorRT says that {self._engine.name!r} cannot be captured"
        try:
            graph = self._stream.capture(self._work)
        except EngineError as error:
            return str(error)
        self._graph, self._captured = graph, self._bound()
        return ""

    def _work(self) -> None:
        for name in self._inputs:
            self._stream.upload(self._memory[name].address, self.buffers[name])
        self._engine.enqueue(self._context, self._stream)
        for name in self._outputs:
            self._stream.download(self.buffers[name], self._memory[name].address)

    def _bound(self) -> tuple[Any, ...]:
        """What a captured graph has frozen: addresses on both sides, and shapes."""
        return tuple(
            (name, array.ctypes.data, array.shape, self._memory[name].address) for name, array in self.buffers.items()
        )


class TensorRtDeviceExecution:
    """An execution context of a shared `TensorRtEngine`, bound to device memory and a stream of somebody else."""

    def __init__(self, engine: TensorRtEngine, context: TensorRtContext, stream: CudaStream) -> None:
        """Made by `TensorRtEngine.bind`."""
        self._engine, self._context, self._stream = engine, context, stream

    def enqueue(self) -> None:
        """Put the work into the stream; raises `EngineError` if TensorRT refuses it."""
        self._engine.enqueue(self._context, self._stream)

    def uncapturable(self) -> str:
        """Why TensorRT's work cannot be captured, "" if it can; true after a first run."""
        return "" if self._engine.capturable(self._context, self._stream) else "TensorRT cannot be captured here"


class TensorRtEngine:
    """One plan of a bundle, deserialised on the GPU."""

    def __init__(
        self,
        name: str,
        graph: GraphInfo,
        plan: Content,
        module: Any,
        cuda: Cuda,
        *,
        device: str = "GPU",
        cache: Path | None = None,
        allow_host_code: bool = False,
    ) -> None:
        """Deserialise a plan that has passed the pre-flight, and check it against `graph`.

        Args:
            name: the graph's name, for messages.
            graph: the contract as the manifest states it.
            plan: content of the file, which is not needed afterwards.
            module: `tensorrt_rtx`, `tensorrt` or `tensorrt_lean`, imported.
            cuda: the GPU's context.
            device: the GPU's name, for reports.
            cache: where TensorRT-RTX keeps the kernels that it compiled here; None keeps none.
            allow_host_code: run code of the CPU that the plan may carry. It has the rights of this process.

        Raises:
            EngineError: TensorRT refuses the plan.
            BundleError: inputs or outputs differ from the manifest.
        """
        self.name, self.graph, self.cuda, self.device = name, graph, cuda, device
        self.backend = f"{module.__name__.replace('_', '-')} {module.__version__}"
        self._log = log_of(module)
        self._lock = threading.Lock()
        cuda.activate()
        self._runtime = module.Runtime(self._log.logger)
        self._runtime.engine_host_code_allowed = allow_host_code
        self._engine = self._deserialize(plan)
        if self._engine is None:
            raise EngineError(
                f"{self.backend} cannot load the plan of {name!r} ({self._log.last_error()}); build it again with "
                "rap-export."
            )
        found = engine_signature(self._engine, graph)
        check_signature(name, found, graph.inputs, graph.outputs)
        self._cache_file = RuntimeCacheFile(cache) if cache is not None and hasattr(module, "IRuntimeCache") else None
        self._module, self._cache = module, self._runtime_cache()

    def prepare(
        self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None
    ) -> TensorRtExecution:
        """Bind buffers and run once; see `Engine.prepare`. New buffers are page-locked."""
        given = dict(buffers or {})
        self.cuda.activate()
        bound = allocate(self.graph, given, sizes)
        for name, array in bound.items():
            if name not in given:
                bound[name] = self.cuda.pinned(array.shape, array.dtype)
        pinned = frozenset(name for name in bound if name not in given or self.cuda.is_pinned(bound[name]))
        execution = TensorRtExecution(self, bound, pinned)
        self.keep_kernels()
        return execution

    def bind(
        self, stream: CudaStream, addresses: Mapping[str, int], sizes: Mapping[str, int], activations: DeviceMemory
    ) -> TensorRtDeviceExecution:
        """Bind device memory; see `DeviceEngine.bind`. The first run may compile kernels."""
        context = self.new_context(activations)
        shapes = {tensor.name: resolved_shape(tensor, sizes) for tensor in self.graph.inputs}
        self.set_tensors(context, shapes, addresses)
        return TensorRtDeviceExecution(self, context, stream)

    @property
    def activation_bytes(self) -> int:
        """Device memory that one run needs besides its tensors."""
        return int(self._engine.device_memory_size_v2)

    def enqueue(self, context: TensorRtContext, stream: CudaStream) -> None:
        """Put one run into a stream; raises `EngineError` if TensorRT refuses it."""
        if not context.handle.execute_async_v3(stream.handle):
            raise EngineError(
                f"The plan of {self.name!r} failed on the GPU ({self._log.last_error()}); build it again with "
                "rap-export."
            )

    def capturable(self, context: TensorRtContext, stream: CudaStream) -> bool:
        """False if TensorRT says beforehand that its work cannot be captured."""
        # Only TensorRT-RTX, which compiles late, can tell; elsewhere a capture that fails does.
        ask = getattr(context.handle, "is_stream_capturable", None)
        return ask is None or bool(ask(stream.handle))

    def set_tensors(
        self, context: TensorRtContext, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]
    ) -> None:
        """Give a context the shapes of its inputs and the addresses of all tensors.

        Raises:
            EngineError: TensorRT refuses one.
        """
        for name, shape in shapes.items():
            if not context.handle.set_input_shape(name, shape):
                raise EngineError(
                    f"The plan of {self.name!r} does not take {name!r} as {list(shape)}; build it again with "
                    "rap-export."
                )
        for name, address in addresses.items():
            if not context.handle.set_tensor_address(name, address):
                raise EngineError(f"The plan of {self.name!r} refuses a buffer for {name!r}; build it again.")

    def keep_kernels(self) -> None:
        """Write the kernels that were compiled here beside the bundle, if there are new ones."""
        if self._cache_file is not None:
            with self._lock:
                self._cache_file.save(self._cache)

    def new_context(self, activations: DeviceMemory) -> TensorRtContext:
        """An execution context with the shared runtime cache that works in `activations` of `activation_bytes`.

        Raises:
            EngineError: the GPU has no room for it.
        """
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        config = self._runtime_config(strategy)
        with self._lock:
            context = self._engine.create_execution_context(strategy if config is None else config)
        if context is None:
            raise EngineError(
                f"The GPU has no room for the activations of {self.name!r} ({self._log.last_error()}); free GPU memory."
            )
        # Those that TensorRT would make wait for the default stream, which belongs to the rest of the program.
        auxiliary = tuple(self.cuda.stream() for _ in range(self._engine.num_aux_streams))
        context.set_device_memory(activations.address, self.activation_bytes)
        context.set_aux_streams([stream.handle for stream in auxiliary])
        return TensorRtContext(context, auxiliary)

    def _deserialize(self, plan: Content) -> Any:
        """The engine in a plan, None if TensorRT refuses it."""
        if not plan:
            raise EngineError(f"The plan of {self.name!r} is empty; build it again with rap-export.")
        return self._runtime.deserialize_cuda_engine(plan)

    def _runtime_cache(self) -> Any:
        if self._cache_file is None:
            return None
        cache = self._engine.create_runtime_config().create_runtime_cache()
        self._cache_file.load(cache)
        return cache

    def _runtime_config(self, strategy: Any) -> Any:
        """A configuration that brings the kernel cache; None where there is no cache."""
        if self._cache is None:
            return None
        config = self._engine.create_runtime_config()
        config.set_runtime_cache(self._cache)
        # Shapes never change after a context is bound, so its first run may as well compile the kernels for them.
        config.dynamic_shapes_kernel_specialization_strategy = (
            self._module.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        config.set_execution_context_allocation_strategy(strategy)
        return config


def engine_signature(engine: Any, graph: GraphInfo) -> GraphInfo:
    """Inputs and outputs of a deserialised engine; a dimension that the contract leaves free gets its name there."""
    names = {tensor.name: tensor for tensor in (*graph.inputs, *graph.outputs)}
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        contract = names[name].shape if name in names else ()
        shape: list[int | str] = []
        for axis, size in enumerate(engine.get_tensor_shape(name)):
            free = axis < len(contract) and isinstance(contract[axis], str)
            shape.append(contract[axis] if free else int(size))
        dtype = engine.get_tensor_dtype(name).name
        tensor = TensorInfo(name, DTYPES.get(dtype, dtype.lower()), tuple(shape))
        (inputs if engine.get_tensor_mode(name).name == "INPUT" else outputs).append(tensor)
    return GraphInfo(graph.file, tuple(inputs), tuple(outputs))


def check(request: Request) -> None:
    """Compare what every plan needs with what is here; raises `PreflightError`, as `check_engine`."""
    for name, plan in request.plans.items():
        check_engine(request.bundle, name, plan, request.machine())


def needs(request: Request) -> tuple[Need, ...]:
    """What the first plan asks for; the others were built together with it."""
    for name, plan in request.plans.items():
        return engine_needs(request.bundle, name, plan, request.machine())
    return ()


def load(request: Request) -> Loaded:
    """Deserialise every plan, on one GPU and for one stream; see `Backend.load`."""
    bundle, machine = request.bundle, request.machine()
    engines: dict[str, TensorRtEngine] = {}
    with ExitStack() as files:
        contents = {name: _mapped(files, bundle, plan) for name, plan in request.plans.items()}
        gpu, cuda = machine.driver.devices[0], Cuda()
        for name, plan in request.plans.items():
            chosen = fitting_module(bundle, plan, machine)
            module = load_module(chosen)
            if module is None:
                raise PreflightError(f"The module {chosen.module!r} does not load; run {chosen.install}.")
            engines[name] = TensorRtEngine(
                name,
                bundle.manifest.graphs[name],
                contents[name],
                module,
                cuda,
                device=gpu.name,
                cache=cache_path(bundle, name, plan, gpu.compute_capability),
                allow_host_code=request.allow_host_code,
            )
    return Loaded(engines, OnGpu(engines, cuda, cuda.stream()))


def _mapped(files: ExitStack, bundle: Bundle, plan: EngineInfo) -> Content:
    """A plan in pages that the system can take back at any time: on a Jetson a copy would take the GPU's memory."""
    try:
        return files.enter_context(bundle.mapped(plan.file))
    except BundleError as error:
        raise damaged(bundle, plan, error) from None
