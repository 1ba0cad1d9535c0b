"""Small steps that graph passes share."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def initializer(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    """A new constant of `graph`."""
    value = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.register_initializer(value)
    return value


def inner_value(node: ir.Node, name: str, like: ir.Value) -> ir.Value:
    """Name the node's first output and give it the type and shape of `like`."""
    value = node.outputs[0]
    value.name, value.shape = name, like.shape
    if like.dtype is not None:
        value.dtype = like.dtype
    return value


def only_reader(value: ir.Value) -> ir.Node | None:
    """The single node that reads `value`, or None if there are several or it is a graph output."""
    readers = list(value.consumers())
    return readers[0] if len(readers) == 1 and len(value.uses()) == 1 and not value.is_graph_output() else None
