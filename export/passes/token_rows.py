"""Pass `token_rows`: what works on every token alone works on a matrix of tokens.

ONNX Runtime multiplies and adds a bias in one `Gemm` only if the tokens are a matrix; otherwise it puts a `Reshape`
before and behind each. Tokens [B, N, C] become [B * N, C] once for a whole run of such nodes.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, remove_unused, reshaped, static_shape

_UNARY = frozenset(("Gelu", "Relu", "Sigmoid", "Tanh", "Erf"))
_BINARY = frozenset(("Add", "Sub", "Mul", "Div"))
_NORMS = frozenset(("LayerNormalization", "RMSNormalization"))


def token_rows(model: ir.Model) -> int:
    """Rewrite matrix products with constant weights and all that is joined to them, in place; returns how many nodes.

    Only static shapes [B, N, C] are touched.
    """
    chosen = _joined([node for node in model.graph if _rows_of(node) is not None])
    matrices: dict[ir.Value, ir.Value] = {}
    for node in chosen:
        _rewrite(model.graph, node, matrices)
    remove_unused(model)
    return len(chosen)


def _rows_of(node: ir.Node) -> list[int] | None:
    """Indices of the inputs that are tokens, if the node treats every token alone."""
    shape = static_shape(node.outputs[0])
    if shape is None or len(shape) != 3 or len(node.outputs) != 1 or node.domain != "":
        return None
    inputs = [static_shape(value) for value in node.inputs]
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        constant = weight is not None and weight.const_value is not None and len(inputs[1] or ()) == 2
        return [0] if constant else None
    if node.op_type in _NORMS:
        return [0] if node.attributes.get_int("axis", -1) in (-1, 2) else None
    if node.op_type in _UNARY:
        return [0]
    if node.op_type not in _BINARY:
        return None
    rows = [index for index, found in enumerate(inputs) if found == shape]
    others = [found for found in inputs if found != shape]
    return rows if rows and all(found is not None and _is_vector(found, shape[2]) for found in others) else None


def _is_vector(shape: tuple[int, ...], width: int) -> bool:
    return math.prod(shape) == 1 or (math.prod(shape) == width and shape[-1] == width)


def _joined(nodes: list[ir.Node]) -> list[ir.Node]:
    """Those of `nodes` that a chain of them joins to a matrix product; the others gain nothing."""
    candidates = set(nodes)
    pending = [node for node in nodes if node.op_type == "MatMul"]
    found = set(pending)
    while pending:
        node = pending.pop()
        before = [node.inputs[index].producer() for index in _rows_of(node) or ()]  # type: ignore[union-attr]
        for other in (*before, *node.outputs[0].consumers()):
            if other in candidates and other not in found and other is not None:
                found.add(other)
                pending.append(other)
    return [node for node in nodes if node in found]


def _rewrite(graph: ir.Graph, node: ir.Node, matrices: dict[ir.Value, ir.Value]) -> None:
    """`matrices` are the tokens that exist as a matrix already."""
    shape = static_shape(node.outputs[0])
    assert shape is not None
    rewriter, rows = Rewriter(graph, node), _rows_of(node) or []
    inputs: list[ir.Value | None] = list(node.inputs)
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        if index in rows:
            if value not in matrices:
                width = (static_shape(value) or ())[-1]
                matrices[value] = reshaped(rewriter, value, (shape[0] * shape[1], width))
            inputs[index] = matrices[value]
        elif node.op_type in _BINARY and len(value.shape or ()) > 1:
            inputs[index] = reshaped(rewriter, value, (math.prod(static_shape(value) or ()),))
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    if node.op_type in _NORMS:
        attributes["axis"] = -1
    matrix = rewriter.add(node.op_type, inputs, **attributes)
    matrix.shape = ir.Shape((shape[0] * shape[1], shape[2]))
    tokens = rewriter.add("Reshape", [matrix, rewriter.constant(np.array(shape, np.int64))])
    matrices[tokens] = matrix
    rewriter.replace(node.outputs[0], tokens)
    graph.remove(node, safe=True)
