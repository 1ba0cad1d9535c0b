"""The OpenVINO backend, on the processor in fp32. Needs the optional package `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from ..bundle.manifest import GraphInfo
from ..checks.needs import Need
from ..errors import EngineError
from ..machine.available import available_cores
from .backend import Loaded, Request
from .interface import Array, allocate
from .onnxruntime_engine import write_without_functions

RUNS_GRAPHS = True


class OpenVinoExecution:
    """One session's buffers bound to an inference request."""

    def __init__(self, request: Any, graph: GraphInfo, buffers: dict[str, Array]) -> None:
        import openvino

        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)
        self._request = request
        for tensor in graph.inputs:
            request.set_tensor(tensor.name, openvino.Tensor(buffers[tensor.name], shared_memory=True))
        for tensor in graph.outputs:
            request.set_tensor(tensor.name, openvino.Tensor(buffers[tensor.name], shared_memory=True))

    def run(self) -> None:
        """Run the graph on the bound buffers; raises `EngineError` if OpenVINO fails."""
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO failed ({str(error).splitlines()[0]}); leave it out of the comparison."
            ) from error

    def capture(self) -> str:
        """OpenVINO replays nothing."""
        return "OpenVINO runs without a captured graph"


class OpenVinoEngine:
    """One graph of a bundle, compiled for the CPU in fp32."""

    def __init__(self, name: str, graph: GraphInfo, path: Path, threads: int) -> None:
        """Read and compile a model without local functions, of which OpenVINO knows nothing.

        Raises:
            EngineError: OpenVINO cannot, or is not installed.
        """
        _require_openvino()
        import openvino

        self.graph = graph
        self.backend = f"openvino {openvino.__version__.partition('-')[0]}"
        self.device = f"CPU, {threads} threads"
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(
                core.read_model(path),
                "CPU",
                {
                    "INFERENCE_NUM_THREADS": threads,
                    "INFERENCE_PRECISION_HINT": "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                    "NUM_STREAMS": 1,
                },
            )
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot load graph {name!r} ({str(error).strip().splitlines()[-1]}); leave it out."
            ) from error

    def prepare(
        self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None
    ) -> OpenVinoExecution:
        """Bind buffers; see `Engine.prepare`."""
        return OpenVinoExecution(
            self._compiled.create_infer_request(), self.graph, allocate(self.graph, buffers, sizes)
        )


def check(request: Request) -> None:
    """Whether OpenVINO is installed; raises `EngineError` if not."""
    _require_openvino()


def needs(request: Request) -> tuple[Need, ...]:
    """OpenVINO."""
    return (_require_openvino,)


def load(request: Request) -> Loaded:
    """Verify and compile every graph; see `Backend.load`."""
    bundle, threads = request.bundle, request.threads or available_cores()
    engines: dict[str, OpenVinoEngine] = {}
    with TemporaryDirectory(prefix="rap-edge-openvino-") as folder:
        for name, graph in bundle.manifest.graphs.items():
            path = Path(folder) / f"{name}.onnx"
            with bundle.graph_content(name) as content:
                write_without_functions(graph, content, path)
            engines[name] = OpenVinoEngine(name, graph, path, threads)
    return Loaded(engines)


def _require_openvino() -> None:
    try:
        import openvino  # noqa: F401
    except ImportError:
        raise EngineError("OpenVINO is not installed; pip install 'rap-edge[bench]' or leave it out.") from None
