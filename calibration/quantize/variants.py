"""Graphs with chosen layers in 8 bits, made from the base graphs and loaded into ONNX Runtime."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from rap_edge.export.bundle_writer import EXTERNAL_DATA_LIMIT
from rap_edge.export.rewriter import static_shape
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from rap_edge.runtime.spec import ModelSpec

from ..observe.layers import Layer, layers_of
from ..observe.ranges import Activation, Extent
from ..targets import Target
from .cpu_passes import absorb_bias, join_bias, pixels_from_quantized, silu_in_bytes
from .qdq import quantize
from .smoothing import smooth


@dataclass
class GraphPlan:
    """What is known of one graph before layers are chosen.

    Attributes:
        name: of the graph.
        info: its contract.
        path: the prepared graph in the work folder.
        layers: what can be quantised, in order.
        activations: what was observed.
        extents: what the 8-bit numbers of every activation span.
        observer: that gave the extents.
        smoothed: activations that are smoothed where all of their layers are quantised.
    """

    name: str
    info: GraphInfo
    path: Path
    layers: tuple[Layer, ...]
    activations: Mapping[str, Activation] = field(default_factory=dict)
    extents: Mapping[str, Extent] = field(default_factory=dict)
    observer: str = "min-max"
    smoothed: tuple[str, ...] = ()

    def readers(self, activation: str) -> tuple[Layer, ...]:
        """The layers that read an activation."""
        return tuple(layer for layer in self.layers if layer.input == activation)


def prepare(bundle: Bundle, target: Target, folder: Path) -> dict[str, GraphPlan]:
    """Copy the bundle's graphs into `folder`, made ready for the target, and list their layers."""
    plans = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, info in bundle.manifest.graphs.items():
        bundle.verify(bundle.graph_files(name))
        model = ir.load(bundle.path(info.file))
        if target.quantize_outputs:
            absorb_bias(model)
        if any(value.dtype is None for node in model.graph for value in node.outputs):
            ShapeInferencePass()(model)
        path = folder / f"{name}.onnx"
        save(model, path)
        plans[name] = GraphPlan(name, info, path, layers_of(name, ir.load(path)))
    return plans


def save(model: ir.Model, path: Path) -> None:
    """Write a model; large weights go beside it."""
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    ir.save(model, path, external_data=f"{path.name}.data" if weights > EXTERNAL_DATA_LIMIT else None)


def build(
    plan: GraphPlan, chosen: Collection[str], target: Target, extents: Mapping[str, Extent] | None = None
) -> ir.Model:
    """The graph with the chosen layers (by node name) in 8 bits.

    Args:
        plan: with extents for what the layers read and give.
        chosen: node names.
        target: decides the numbers.
        extents: stand in for the plan's.
    """
    model = ir.load(plan.path)
    layers = [layer for layer in plan.layers if layer.node in chosen]
    known = dict(plan.extents if extents is None else extents)
    for activation in plan.smoothed:
        readers = plan.readers(activation)
        seen = plan.activations[activation]
        if seen.channels is not None and all(layer.node in chosen for layer in readers):
            result = smooth(model, readers, seen.channels, seen.extent)
            known[result.name] = result.extent
    quantize(model, layers, known, target)
    if target.quantize_outputs:
        join_bias(model)
        silu_in_bytes(model)
        pixels_from_quantized(model)
    return model


class Variants:
    """Engines of graphs with chosen layers in 8 bits; files live as long as it takes to load them."""

    def __init__(
        self, spec: ModelSpec, plans: Mapping[str, GraphPlan], target: Target, folder: Path, threads: int | None
    ) -> None:
        self.spec, self.plans, self.target, self.threads = spec, dict(plans), target, threads
        self._folder = folder

    def with_plan(self, plan: GraphPlan) -> Variants:
        """The same with another plan of one graph."""
        return Variants(self.spec, {**self.plans, plan.name: plan}, self.target, self._folder, self.threads)

    def with_threads(self, threads: int) -> Variants:
        """The same on another number of threads."""
        return Variants(self.spec, self.plans, self.target, self._folder, threads)

    def engine(
        self,
        graph: str,
        chosen: Collection[str],
        extents: Mapping[str, Extent] | None = None,
        threads: int | None = None,
    ) -> OnnxRuntimeEngine:
        """Build and load one graph; see `build`."""
        plan = self.plans[graph]
        folder = self._folder / secrets.token_hex(4)
        folder.mkdir(parents=True)
        try:
            path = folder / f"{graph}.onnx"
            save(build(plan, chosen, self.target, extents), path)
            return OnnxRuntimeEngine(graph, plan.info, path, threads or self.threads)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def engines(self, chosen: Collection[str], base: Mapping[str, OnnxRuntimeEngine]) -> dict[str, OnnxRuntimeEngine]:
        """All graphs with the chosen layers (by key); graphs without any are `base`'s."""
        result = dict(base)
        for graph, plan in self.plans.items():
            nodes = nodes_of(plan.layers, chosen)
            if nodes:
                result[graph] = self.engine(graph, nodes)
        return result


def shapes_of(path: Path) -> dict[str, tuple[int, ...] | None]:
    """Shape of every value of a graph by name, None where a dimension is free."""
    graph = ir.load(path).graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    return {str(value.name): static_shape(value) for value in values}


def nodes_of(layers: Sequence[Layer], keys: Collection[str]) -> set[str]:
    """Node names of the layers whose keys are among `keys`."""
    return {layer.node for layer in layers if layer.key in keys}
