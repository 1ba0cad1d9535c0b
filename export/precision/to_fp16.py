"""Half precision as a property of the graph: fp16 everywhere but on islands that named rules keep in fp32.

In: an fp32 `ir.Model`. Out: the same model in fp16 with casts where the precision changes, each cast once per value,
and one `Island` per node that stayed in fp32, with the rule and its reason. The result is strongly typed, as TensorRT
wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from rap_edge.runtime.bundle.manifest import Island
from rap_edge.runtime.errors import ExportError

from .operator_types import takes_half
from .rules import BETWEEN, MOVEMENT, RULES, Between, Rule, is_float


def to_fp16(
    model: ir.Model, io_dtypes: Mapping[str, str] | None = None, rules: Sequence[Rule] = RULES
) -> tuple[Island, ...]:
    """Convert an fp32 model in place.

    Args:
        model: fp32; float constants are initialisers.
        io_dtypes: numpy dtype names of graph inputs and outputs that become "float16"; the others keep theirs.
        rules: decide which nodes stay in fp32; the first that selects a node is the one that is named.

    Returns:
        The islands in graph order.

    Raises:
        ExportError: a weight is not finite, or an operator holds a subgraph.
    """
    graph, dtypes = model.graph, io_dtypes or {}
    kept: dict[ir.Node, Rule | Between] = {}
    for rule in rules:
        for node in rule.select(graph):
            if node.op_type not in MOVEMENT:
                kept.setdefault(node, rule)
    for node in _between_islands(graph, kept, dtypes):
        kept[node] = BETWEEN
    conversion = _Conversion(graph, dtypes)
    islands = []
    for node in list(graph):
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            raise ExportError(f"Node {node.name!r} of graph {graph.name!r} holds a subgraph, which has no fp16 form.")
        computes_floats = any(is_float(value) for value in (*node.inputs, *node.outputs))
        if node in kept and computes_floats:
            islands.append(Island(str(graph.name), str(node.name), kept[node].name, kept[node].reason))
        conversion.convert(node, ir.DataType.FLOAT if node in kept else ir.DataType.FLOAT16)
    conversion.finish()
    return tuple(islands)


def _between_islands(
    graph: ir.Graph, kept: Mapping[ir.Node, object], io_dtypes: Mapping[str, str]
) -> Iterable[ir.Node]:
    """Nodes that only move data and whose sources and readers are all in fp32."""
    available = {value for value in graph.inputs if io_dtypes.get(str(value.name)) != "float16"}
    candidates: list[ir.Node] = []
    for node in graph:
        sources = [v for v in node.inputs if v is not None and v.const_value is None and v.dtype == ir.DataType.FLOAT]
        if node in kept:
            available.update(node.outputs)
        elif node.op_type in MOVEMENT and sources and all(value in available for value in sources):
            available.update(node.outputs)
            candidates.append(node)
    wanted: set[ir.Node] = set()
    for node in reversed(candidates):
        ends_in_fp32 = all(
            io_dtypes.get(str(value.name)) != "float16" for value in node.outputs if value.is_graph_output()
        )
        readers = [reader for value in node.outputs for reader in value.consumers()]
        if ends_in_fp32 and all(reader in kept or reader in wanted for reader in readers):
            wanted.add(node)
    return wanted


class _Conversion:
    """Types of a model while its nodes are visited in order."""

    def __init__(self, graph: ir.Graph, io_dtypes: Mapping[str, str]) -> None:
        self._graph = graph
        self._io = {name: ir.DataType.FLOAT16 for name, dtype in io_dtypes.items() if dtype == "float16"}
        self._floats: set[ir.Value] = set()
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._halves: dict[ir.Value, ir.Value] = {}
        for value in graph.inputs:
            if value.dtype == ir.DataType.FLOAT:
                self._floats.add(value)
                value.dtype = self._io.get(str(value.name), ir.DataType.FLOAT)

    def convert(self, node: ir.Node, target: ir.DataType) -> None:
        """Give `node` inputs of type `target` where they are floats, and note the type of its outputs."""
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            wanted = target if takes_half(node, index) else ir.DataType.FLOAT
            if value.const_value is not None:
                if value.dtype == ir.DataType.FLOAT and wanted == ir.DataType.FLOAT16:
                    node.replace_input_with(index, self._half(value))
            elif value in self._floats and value.dtype != wanted and node.op_type != "Cast":
                node.replace_input_with(index, self._cast(value, wanted, node))
        if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(target))
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                self._floats.add(value)
                value.dtype = target

    def finish(self) -> None:
        """Give the graph's outputs the types of the contract and drop the weights that were replaced."""
        for index, value in enumerate(self._graph.outputs):
            wanted = self._io.get(str(value.name), ir.DataType.FLOAT)
            if value in self._floats and value.dtype != wanted:
                name = value.name
                producer = value.producer()
                assert producer is not None  # an output that is an input has the contract's type already
                value.name = f"{name}_{value.dtype.name.lower()}"  # type: ignore[union-attr]
                cast = self._cast(value, wanted, None)
                cast.name = name
                cast.shape = value.shape
                self._graph.outputs[index] = cast
        for value in list(self._graph.initializers.values()):
            if not value.uses() and not value.is_graph_output():
                del self._graph.initializers[str(value.name)]

    def _cast(self, value: ir.Value, target: ir.DataType, before: ir.Node | None) -> ir.Value:
        key = (value, target)
        if key not in self._casts:
            node = ir.node("Cast", [value], attributes={"to": int(target)}, name=f"{value.name}_to_{target.name}")
            result = node.outputs[0]
            result.name, result.dtype, result.shape = f"{value.name}_{target.name.lower()}", target, value.shape
            producer = value.producer()
            if producer is not None:
                self._graph.insert_after(producer, node)
            elif before is not None:
                self._graph.insert_before(self._graph[0], node)
            self._casts[key] = result
        return self._casts[key]

    def _half(self, value: ir.Value) -> ir.Value:
        if value not in self._halves:
            tensor = value.const_value
            assert tensor is not None  # the caller has checked
            name = f"{value.name}_float16"
            half = ir.Value(
                name=name,
                shape=value.shape,
                type=ir.TensorType(ir.DataType.FLOAT16),
                const_value=_half_later(tensor, name),
            )
            self._graph.register_initializer(half)
            self._halves[value] = half
        return self._halves[value]


def _half_later(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    """The tensor in fp16, converted when it is saved, so that both copies of all weights never lie in memory."""

    def convert() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float16), name=name)

    shape = tensor.shape
    assert isinstance(shape, ir.Shape)
    return ir.LazyTensor(convert, dtype=ir.DataType.FLOAT16, shape=shape, name=name)
