"""OpenVINO as an engine, for side-by-side measurement of the same ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rap_edge.runtime.bundle import Bundle, GraphInfo
from rap_edge.runtime.engine import Array, allocate
from rap_edge.runtime.errors import EngineError
from rap_edge.runtime.onnxruntime_engine import cpu_name


class OpenVinoExecution:
    """Buffers bound to one infer request of a compiled graph."""

    def __init__(self, compiled: Any, buffers: dict[str, Array]) -> None:
        import openvino

        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)
        self._request = compiled.create_infer_request()
        for name, buffer in buffers.items():
            self._request.set_tensor(name, openvino.Tensor(buffer, shared_memory=True))

    def run(self) -> None:
        """Run the graph on the bound buffers; raises `EngineError` if OpenVINO fails."""
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed ({error}); measure without it.") from error

    def capture(self) -> str:
        """OpenVINO replays nothing."""
        return "OpenVINO runs without a captured graph"


class OpenVinoEngine:
    """One graph of a bundle, compiled for the CPU in the precision that the graph states."""

    def __init__(self, graph: GraphInfo, path: Path, threads: int) -> None:
        """Compile the ONNX file at `path`.

        Raises:
            EngineError: OpenVINO is not installed or cannot compile the graph.
        """
        try:
            import openvino
        except ImportError:
            raise EngineError("OpenVINO is not installed; install rap-edge with the extra [bench].") from None
        # Without the hint OpenVINO would run fp32 graphs in bf16 where the CPU has it.
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        try:
            self._compiled = openvino.Core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(f"OpenVINO cannot compile {path.name!r} ({reason}); measure without it.") from error
        self.graph = graph
        self.backend = f"openvino {openvino.__version__.split('-')[0]}"
        self.device = f"{cpu_name()}, {threads} threads"

    def prepare(
        self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None
    ) -> OpenVinoExecution:
        """Bind buffers; see `Engine.prepare`."""
        return OpenVinoExecution(self._compiled, allocate(self.graph, buffers, sizes))


def load_openvino_engines(bundle: Bundle, threads: int) -> dict[str, OpenVinoEngine]:
    """Verify and compile the five graphs of a bundle.

    Raises:
        BundleError: a file is missing or changed.
        EngineError: OpenVINO is missing or cannot compile a graph.
    """
    engines = {}
    for name, graph in bundle.manifest.graphs.items():
        bundle.verify(bundle.graph_files(name))
        engines[name] = OpenVinoEngine(graph, bundle.path(graph.file), threads)
    return engines
