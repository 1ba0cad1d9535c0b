"""The ONNX Runtime backend: `prepare` binds numpy buffers once, `run` only runs."""

from __future__ import annotations

import io
import os
import platform
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort

from ..bundle.bundle import Bundle, GraphContent
from ..bundle.contract import check_signature, chunk_sizes
from ..bundle.manifest import GraphInfo, TensorInfo
from ..checks.bounds import Whole
from ..checks.needs import Need
from ..checks.protobuf_wire import Content
from ..errors import EngineError, first_line, full_memory
from ..machine.available import THREADS, available_cores
from ..machine.cpu import cpu_features
from ..machine.cuda import Cuda, CudaStream, DeviceMemory
from ..machine.cuda_driver import query_driver
from ..machine.home_process import HomeProcess, keep_elsewhere
from .backend import Loaded, OnGpu, Request
from .cpu_memory import require_memory
from .eight_bits import trouble_on_cpu, trouble_on_gpu
from .interface import Array, allocate, resolved_shape
from .small_graphs import threads_for

RUNS_GRAPHS = True
Providers = tuple[str | tuple[str, dict[str, str]], ...]
CPU_ONLY: Providers = ("CPUExecutionProvider",)
# ONNX Runtime's own log on stderr, by its own numbers: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal.
LOG_VARIABLE, LOG_SEVERITIES = "RAP_ONNXRUNTIME_LOG", Whole(0, 4)
_CUDA = "CUDAExecutionProvider"
# Operators that a GPU is there for.
_PRODUCTS = ("Attention", "Conv", "Gemm", "MatMul")
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
# onnxruntime's exception types derive from Exception or RuntimeError, depending on the status code.
_FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        value
        for value in vars(ort.capi.onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)


# Runs after which ONNX Runtime may wait for the GPU, which is when it gives its staging buffers back.
_CLEAN_UP_RUNS = 256


class OnnxRuntimeExecution:
    """One session's buffers bound to a shared `OnnxRuntimeEngine`."""

    def __init__(self, engine: OnnxRuntimeEngine, buffers: dict[str, Array]) -> None:
        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)
        self._engine = engine
        self._binding = engine.session.io_binding()
        # On the CPU an OrtValue shares the array's memory, so a run neither copies nor allocates its ends.
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(buffer) for name, buffer in buffers.items()}
        for tensor in engine.graph.inputs:
            self._binding.bind_ortvalue_input(tensor.name, self._values[tensor.name])
        for tensor in engine.graph.outputs:
            self._binding.bind_ortvalue_output(tensor.name, self._values[tensor.name])

    def run(self) -> None:
        """Run the graph on the bound buffers; raises `EngineError` if ONNX Runtime fails."""
        self._engine.run(self._binding)

    def capture(self) -> str:
        """ONNX Runtime replays nothing on the CPU."""
        return "ONNX Runtime runs without a captured graph"


class OnnxRuntimeDeviceExecution:
    """A shared `OnnxRuntimeEngine` bound to device memory; its work goes into the stream that the engine was given."""

    def __init__(self, engine: OnnxRuntimeEngine, addresses: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        """Made by `OnnxRuntimeEngine.bind`."""
        self._engine, self._runs = engine, 0
        self._binding = engine.session.io_binding()
        self._options = ort.RunOptions()
        # The stream keeps the order; waiting for the GPU after every graph would only leave it idle.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        memory = "cuda" if engine.is_on_gpu else "cpu"
        for tensors, bind in (
            (engine.graph.inputs, self._binding.bind_input),
            (engine.graph.outputs, self._binding.bind_output),
        ):
            for tensor in tensors:
                shape = resolved_shape(tensor, sizes)
                bind(tensor.name, memory, 0, np.dtype(tensor.dtype).type, shape, addresses[tensor.name])

    def enqueue(self) -> None:
        """Put the work into the stream; raises `EngineError` if ONNX Runtime fails."""
        self._runs += 1
        self._engine.run(self._binding, self._options if self._runs % _CLEAN_UP_RUNS else None)

    def uncapturable(self) -> str:
        """ONNX Runtime captures only graphs of its own."""
        return "ONNX Runtime cannot be captured together with other work"


class OnnxRuntimeEngine:
    """One graph of a bundle, loaded."""

    activation_bytes = 0

    def __init__(
        self,
        name: str,
        graph: GraphInfo,
        model: Path | GraphContent,
        threads: int | None = None,
        providers: Providers | None = None,
        *,
        keeps_memory: bool = True,
    ) -> None:
        """Load a model and check it against `graph`.

        Args:
            name: the graph's name, for messages.
            graph: the contract as the manifest states it.
            model: an ONNX file of one's own, or what was read of a bundle.
            threads: most threads of one run, of which a small graph takes one; None takes every core that the process
                may use.
            providers: where it may run, best first; None takes a GPU if this ONNX Runtime can, else the CPU.
            keeps_memory: whether the CPU's working memory stays for the next run, which is faster, or is given back.

        Raises:
            EngineError: ONNX Runtime cannot load the file, or there are too many threads.
            BundleError: inputs or outputs differ from the manifest.
        """
        self.name, self.graph = name, graph
        if threads is not None and (fault := THREADS.fault(threads)):
            raise EngineError(f"The threads of an engine {fault}; pass --threads in that range.")
        options = ort.SessionOptions()
        options.log_severity_level = _log_severity()
        most = threads or available_cores()
        options.intra_op_num_threads = threads_for(graph, most)
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = keeps_memory
        # The graphs of a chunk run in turn: threads of the last one that still spin would slow the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Its change of int8 Q/DQ to uint8 fails on Q/DQ that ONNX Runtime has moved itself; ours are uint8 for CPUs.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        # What looks like ONNX Runtime's own format would be read as that, which nobody has checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        wanted = providers or on_gpu()
        if wanted != CPU_ONLY:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if isinstance(model, GraphContent):
            _give_data(options, model.data)
        try:
            self.session = ort.InferenceSession(
                model.file if isinstance(model, GraphContent) else str(model),
                options,
                providers=list(wanted),
                # It would print that it goes on with the CPU; whoever asked for a GPU is told by us.
                enable_fallback=0,
            )
        except _FAILURES as error:
            raise _failure(
                error,
                f"ONNX Runtime {ort.__version__} cannot load {graph.file!r} ({first_line(error)}); export the "
                "bundle again or upgrade onnxruntime.",
            ) from error
        weakref.finalize(self, keep_elsewhere, self.session, HomeProcess())
        # It would keep the file's content for a second start on other devices, which none of ours makes.
        vars(self.session).pop("_model_bytes", None)
        found = GraphInfo(graph.file, _tensors(self.session.get_inputs()), _tensors(self.session.get_outputs()))
        check_signature(name, found, graph.inputs, graph.outputs)
        self.backend = f"onnxruntime {ort.__version__}"
        self.is_on_gpu = self.session.get_providers()[0] == _CUDA
        self.beside_gpu = products_beside_gpu(self.session) if self.is_on_gpu else Counter()
        # On a GPU all runs of a session share the handles of its libraries, which take no two threads at once.
        self._turn: AbstractContextManager[object] = threading.Lock() if self.is_on_gpu else nullcontext()
        self.device = "CUDA GPU" if self.is_on_gpu else f"{cpu_name()}, {most} threads"

    def prepare(
        self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None
    ) -> OnnxRuntimeExecution:
        """Bind buffers; see `Engine.prepare`."""
        return OnnxRuntimeExecution(self, allocate(self.graph, buffers, sizes))

    def bind(
        self, stream: CudaStream, addresses: Mapping[str, int], sizes: Mapping[str, int], activations: DeviceMemory
    ) -> OnnxRuntimeDeviceExecution:
        """Bind device memory; see `DeviceEngine.bind`. ONNX Runtime has working memory of its own."""
        return OnnxRuntimeDeviceExecution(self, addresses, sizes)

    def keep_kernels(self) -> None:
        """Nothing is compiled."""

    def run(self, binding: Any, options: Any = None) -> None:
        """Run the graph on bound memory; raises `EngineError` if ONNX Runtime fails."""
        try:
            with self._turn:
                self.session.run_with_iobinding(binding, options)
        except _FAILURES as error:
            raise _failure(
                error, f"Graph {self.name!r} failed in ONNX Runtime ({first_line(error)}); export it again."
            ) from error


def _failure(error: Exception, sentence: str) -> EngineError:
    """The error of a graph, of which full memory is none."""
    return full_memory() if "Failed to allocate memory" in str(error) else EngineError(sentence)


def check(request: Request) -> None:
    """It always runs."""


def needs(request: Request) -> tuple[Need, ...]:
    """Nothing."""
    return ()


def load(request: Request) -> Loaded:
    """Load the graphs for a GPU where one can be used, else for the processor; see `Backend.load`."""
    if not request.gpu or not has_cuda() or not request.machine().driver.devices:
        return _load_on_cpu(request)
    try:
        return _load_on_gpu(request)
    except EngineError as error:
        return _load_on_cpu(request, f"The GPU is not used: {error}")


def _load_on_cpu(request: Request, *notes: str) -> Loaded:
    bundle = request.bundle
    if trouble := trouble_on_cpu(bundle.manifest, cpu_features()):
        notes = (*notes, f"{bundle.root.name}: {trouble}.")
    return Loaded(load_engines(bundle, request.threads, CPU_ONLY), notes=notes)


def _load_on_gpu(request: Request) -> Loaded:
    bundle, notes = request.bundle, []
    if trouble := trouble_on_gpu(bundle.manifest):
        raise EngineError(f"{bundle.root.name}: {trouble}.")
    cuda = Cuda()
    stream = cuda.stream()
    engines = load_engines(bundle, request.threads, on_gpu(stream.handle))
    for name, engine in engines.items():
        for operator, count in engine.beside_gpu.items():
            told = f"{engine.backend} computes {count} {operator} of {name!r} on the processor"
            notes.append(f"{told}; upgrade onnxruntime-gpu.")
    if not all(engine.is_on_gpu for engine in engines.values()):
        raise EngineError("ONNX Runtime cannot load its CUDA libraries; run pip install 'rap-edge[gpu]'.")
    try:
        # cuDNN is loaded by the first convolution only.
        engines["vae_encoder"].prepare(sizes=chunk_sizes(bundle.manifest.spec)).run()
    except EngineError as error:
        raise EngineError(f"{str(error).partition('; ')[0]}; run pip install 'rap-edge[gpu]' for its cuDNN.") from None
    return Loaded(engines, OnGpu(engines, cuda, stream, partial(_load_on_cpu, request)), tuple(notes))


def load_engines(
    bundle: Bundle, threads: int | None = None, providers: Providers | None = None
) -> dict[str, OnnxRuntimeEngine]:
    """Check and load the five graphs of a bundle; arguments as for `OnnxRuntimeEngine`.

    Raises:
        BundleError: a file is missing or changed, or a graph differs from the manifest.
        MemoryPlanError: the processor is to run them and its free memory does not hold them.
        EngineError: ONNX Runtime cannot load a graph.
    """
    if (providers or on_gpu()) == CPU_ONLY:
        require_memory(bundle.manifest)
    engines = {}
    for name, graph in bundle.manifest.graphs.items():
        with bundle.graph_content(name) as content:
            engines[name] = OnnxRuntimeEngine(name, graph, content, threads, providers)
    return engines


def write_without_functions(graph: GraphInfo, content: GraphContent, path: Path) -> None:
    """Write a graph with its model-local functions expanded, for readers that know none; its weights lie beside it.

    Raises:
        EngineError: ONNX Runtime cannot load it, or the disk is full.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _log_severity()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{path.name}.data")
    _give_data(options, content.data)
    try:
        ort.InferenceSession(content.file, options, providers=list(CPU_ONLY))
    except _FAILURES as error:
        raise _failure(
            error, f"ONNX Runtime cannot write {graph.file!r} anew ({first_line(error)}); free space on the disk."
        ) from error


def cpu_name() -> str:
    """The processor's model name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def has_cuda() -> bool:
    """Whether this ONNX Runtime was built with CUDA."""
    return _CUDA in ort.get_available_providers()


def on_gpu(stream: int | None = None) -> Providers:
    """A GPU if this ONNX Runtime can, else the CPU; `stream` is the CUDA stream for all work, None one of its own."""
    if not has_cuda() or not query_driver().devices:
        return CPU_ONLY
    _load_cuda_libraries()
    # TF32 has the precision of float16, and an fp32 bundle would be fp32 in name only.
    options = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    if stream is not None:
        options["user_compute_stream"] = str(stream)
    return ((_CUDA, options), *CPU_ONLY)


@cache
def _load_cuda_libraries() -> None:
    # What is not there is said by whoever finds that the GPU is not used.
    ort.set_default_logger_severity(_log_severity())
    # Those that were installed as packages are found by no other way, and by itself only beside its own package.
    for folder in _cuda_folders():
        with redirect_stdout(io.StringIO()):
            ort.preload_dlls(directory=str(folder))
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()


def _cuda_folders() -> list[Path]:
    """Folders of CUDA's libraries as packages have them, wherever these are installed."""
    found = find_spec("nvidia")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return [folder for place in places for folder in sorted(Path(place).glob("*/lib"))]


def products_beside_gpu(session: Any) -> Counter[str]:
    """Of a session on a GPU, how many nodes of an operator with products the CPU computes, for want of a kernel."""
    return Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == CPU_ONLY[0]
        for node in part.get_nodes()
        if node.op_type in _PRODUCTS
    )


def _give_data(options: Any, data: Mapping[str, Content]) -> None:
    """Let a model find the files that it calls by these names in memory, and only there."""
    buffers = [np.frombuffer(content, np.uint8) for content in data.values()]
    options.add_external_initializers_from_files_in_memory(list(data), buffers, [buffer.nbytes for buffer in buffers])


def _log_severity() -> int:
    """How much ONNX Runtime writes to stderr, by its own numbers: what it says of an error stands in ours too."""
    text = os.environ.get(LOG_VARIABLE, f"{LOG_SEVERITIES.high}")
    severity = int(text) if text.isdecimal() and len(text) == 1 else text
    if fault := LOG_SEVERITIES.fault(severity):
        raise EngineError(
            f"The environment variable {LOG_VARIABLE} {fault}; 0 writes all, {LOG_SEVERITIES.high} nothing."
        )
    return int(severity)


def _tensors(arguments: Any) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(item.name, _DTYPES.get(item.type, item.type), tuple(item.shape)) for item in arguments)
