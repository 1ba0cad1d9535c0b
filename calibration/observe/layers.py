"""The layers of a graph that can be quantised: convolutions and linear layers with constant weights.

Products of two activations (attention) and `rap::HybridAttention` are no layers: they stay in high precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from rap_edge.export.rewriter import static_shape

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class Layer:
    """One node whose product with its weights can be taken in 8 bits.

    Attributes:
        graph: name of its graph.
        node: name of the node.
        op: "Conv", "MatMul" or "Gemm".
        input: name of the activation that it reads.
        output: name of what it computes.
        weight: name of the constant.
        axis: axis of the weight along which output channels lie.
        input_axis: axis of the weight along which input channels lie.
        weights: elements of the weight.
        products: multiply-adds of one run, 0 where a shape is free.
    """

    graph: str
    node: str
    op: str
    input: str
    output: str
    weight: str
    axis: int
    input_axis: int
    weights: int
    products: int

    @property
    def path(self) -> str:
        """The module in the network that the node was captured from, or the node's own name."""
        return self.node.rpartition("/")[0] or self.node

    @property
    def key(self) -> str:
        """Graph and node, unique in a bundle."""
        return f"{self.graph}:{self.node}"


def layers_of(name: str, model: ir.Model) -> tuple[Layer, ...]:
    """The layers of graph `name` in its order."""
    return tuple(layer for node in model.graph if (layer := _layer(name, node)) is not None)


def find_nodes(model: ir.Model, names: Iterable[str]) -> dict[str, ir.Node]:
    """Nodes of the graph by name."""
    wanted = set(names)
    return {str(node.name): node for node in model.graph if node.name in wanted}


def _layer(graph: str, node: ir.Node) -> Layer | None:
    if node.domain != "" or node.op_type not in ("Conv", "MatMul", "Gemm"):
        return None
    source, weight = node.inputs[0], node.inputs[1]
    if source is None or weight is None or weight.const_value is None or source.const_value is not None:
        return None
    shape = static_shape(weight)
    if weight.dtype not in FLOATS or shape is None:
        return None
    if node.op_type == "Conv":
        # Input channels of a grouped convolution cannot be scaled one by one through the weight's axis 1.
        axis, input_axis = 0, 1
    elif len(shape) != 2 or node.attributes.get_int("transA", 0) != 0:
        return None
    else:
        transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
        axis, input_axis = (0, 1) if transposed else (1, 0)
    result = static_shape(node.outputs[0])
    products = 0 if result is None else math.prod(result) * math.prod(shape) // shape[axis]
    return Layer(
        graph=graph,
        node=str(node.name),
        op=node.op_type,
        input=str(source.name),
        output=str(node.outputs[0].name),
        weight=str(weight.name),
        axis=axis,
        input_axis=input_axis,
        weights=math.prod(shape),
        products=products,
    )
