"""OpenVINO as an engine, for `rap-bench`. Needs the optional package `openvino`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import onnx.inliner

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.engines.interface import Array, allocate
from rap_edge.runtime.errors import EngineError


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
        """Read and compile the model; raises `EngineError` if OpenVINO cannot."""
        try:
            import openvino
        except ImportError:
            raise EngineError("OpenVINO is not installed; pip install 'rap-edge[bench]' or leave it out.") from None
        self.graph = graph
        self.backend = f"openvino {openvino.__version__.partition('-')[0]}"
        self.device = f"CPU, {threads} threads"
        core = openvino.Core()
        try:
            # OpenVINO knows no model-local functions, so hybrid attention is expanded to its definition.
            model = core.read_model(onnx.inliner.inline_local_functions(onnx.load(path)).SerializeToString())
            self._compiled = core.compile_model(
                model,
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


def load_openvino_engines(bundle: Bundle, threads: int) -> dict[str, OpenVinoEngine]:
    """Verify and compile the five graphs of a bundle; raises `BundleError` or `EngineError`."""
    engines = {}
    for name, graph in bundle.manifest.graphs.items():
        bundle.verify(bundle.graph_files(name))
        engines[name] = OpenVinoEngine(name, graph, bundle.path(graph.file), threads)
    return engines
