"""Small tools that the graph passes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

_COUNT = "rap_edge.rewriting.count"
TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


class Rewriter:
    """Adds nodes next to an old one and takes its place."""

    def __init__(self, graph: ir.Graph, old: ir.Node) -> None:
        """New nodes get names that begin with the old node's and stand before it."""
        self._graph, self._old = graph, old

    def add(self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: object) -> ir.Value:
        """A new node's only output, of the first input's type; `op_type` is ONNX's own, or `domain::type`."""
        name = self._name()
        domain, _, kind = op_type.rpartition("::")
        node = ir.node(kind, inputs, attributes=attributes, domain=domain, name=name)  # type: ignore[arg-type]
        output = node.outputs[0]
        output.name = name
        if inputs[0] is not None and inputs[0].dtype is not None:
            output.dtype = inputs[0].dtype
        self._graph.insert_before(self._old, node)
        return output

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        """An initialiser."""
        return constant(self._graph, self._name(), array)

    def advance(self, reader: ir.Node, value: ir.Value) -> None:
        """Move a node that reads `value` alone to where that is made: it may stand behind who is to read it next."""
        self._graph.remove(reader)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], reader)
        else:
            self._graph.insert_after(producer, reader)

    def _name(self) -> str:
        # A graph that was read from a file may hold names that an earlier rewriting gave.
        before = self._graph.meta[_COUNT] if _COUNT in self._graph.meta else _last_count(self._graph)
        count = self._graph.meta[_COUNT] = before + 1
        return f"{str(self._old.name).partition(':')[0]}:{count}"

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Readers of `old` read `new`; a graph output keeps its name."""
        new.shape = old.shape
        if new.dtype is None and old.dtype is not None:
            new.dtype = old.dtype
        if old.is_graph_output():
            old.name, new.name = f"{old.name}:replaced", old.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _last_count(graph: ir.Graph) -> int:
    """The largest number that a name of `Rewriter` ends in."""
    names = [*graph.initializers, *(str(value.name) for node in graph for value in node.outputs)]
    ends = (name.rpartition(":")[2] for name in names)
    return max((int(end) for end in ends if end.isdecimal()), default=0)


def constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A new initialiser of `graph`."""
    value = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.register_initializer(value)
    return value


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape if every dimension is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(dimension) for dimension in value.shape)  # type: ignore[arg-type]


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds."""
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return float(array.reshape(-1)[0]) if array.size == 1 else None


def only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    """The node that reads `value`, if it is the only one, of that type, and the value is no graph output."""
    readers = value.consumers()
    if value.is_graph_output() or len(value.uses()) != 1 or readers[0].op_type != op_type:
        return None
    return readers[0]


def moves_heads(node: ir.Node) -> bool:
    """Whether it is a transposition that brings an attention's heads before its tokens, or back."""
    return node.op_type == "Transpose" and tuple(node.attributes.get_ints("perm", [])) == (0, 2, 1, 3)


def transposed(rewriter: Rewriter, value: ir.Value, perm: Sequence[int]) -> ir.Value:
    """`value` transposed; undoes the transposition that made it, and reuses one that exists already."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        before = [int(axis) for axis in producer.attributes.get_ints("perm", [])]
        if [before[axis] for axis in perm] == list(range(len(perm))) and producer.inputs[0] is not None:
            return producer.inputs[0]
    for reader in value.consumers():
        if reader.op_type == "Transpose" and list(reader.attributes.get_ints("perm", [])) == list(perm):
            rewriter.advance(reader, value)
            return reader.outputs[0]
    result = rewriter.add("Transpose", [value], perm=list(perm))
    if value.shape is not None:
        result.shape = ir.Shape([value.shape[axis] for axis in perm])
    return result


def reshaped(rewriter: Rewriter, value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """`value` in another static shape; looks through the reshapes that made it, and folds that of a constant."""
    while (
        (producer := value.producer()) is not None and producer.op_type == "Reshape" and producer.inputs[0] is not None
    ):
        value = producer.inputs[0]
    if static_shape(value) == tuple(shape):
        return value
    if value.const_value is not None:
        return rewriter.constant(value.const_value.numpy().reshape(shape))
    result = rewriter.add("Reshape", [value, rewriter.constant(np.array(shape, np.int64))])
    result.shape = ir.Shape(shape)
    return result


def rewrite_each(model: ir.Model, op_type: str, rewrite: Callable[[ir.Graph, ir.Node], bool]) -> int:
    """Offer every node of ONNX's own operator `op_type` to `rewrite`, then drop what is not read any more.

    Args:
        model: changed in place.
        op_type: of the nodes.
        rewrite: changes the graph around a node, or leaves it and returns False.

    Returns:
        How many nodes were rewritten.
    """
    nodes = [node for node in model.graph if node.op_type == op_type and node.domain == ""]
    count = sum(rewrite(model.graph, node) for node in nodes)
    remove_unused(model)
    return count


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initialisers that nothing reads any more."""
    RemoveUnusedNodesPass()(model)
