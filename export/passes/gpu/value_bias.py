"""Pass `value_bias`: the bias of an attention's values goes into that of the layer behind the attention.

An attention's weights add up to one, so a bias of its values is one of its result. Without it TensorRT's attention
reads the values where their matrix product leaves them; with it they are read, biased and written once more. That holds
for a batch of one: TensorRT's attention has the batch beside the heads, and all tokens would be written a second time
in that order for the product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...rewriter import Rewriter, moves_heads, only_reader, rewrite_each, static_shape

_VALUE = 2


def value_bias(model: ir.Model) -> int:
    """Move the bias of values behind attentions that a linear layer with a bias follows, in place; returns how many."""
    return rewrite_each(model, "Attention", _rewrite)


def _rewrite(graph: ir.Graph, attention: ir.Node) -> bool:
    # Behind a mask, the weights of a token that sees nothing add up to zero.
    if len(attention.inputs) != 3 or attention.attributes.get_int("is_causal", 0) != 0:
        return False
    value = _tokens_before(attention)
    if (static_shape(value) or (0,))[0] != 1:
        return False
    biased, product = _sum_with_bias(value), _product_behind(attention)
    total = None if product is None else only_reader(product.outputs[0], "Add")
    own = _sum_with_bias(None if total is None else total.outputs[0])
    if value is None or biased is None or product is None or total is None or own is None:
        return False
    weight = product.inputs[1]
    assert weight is not None and weight.const_value is not None  # noqa: PT018
    moved = biased[1] @ weight.const_value.numpy().astype(np.float64)
    rewriter = Rewriter(graph, total)
    bias = rewriter.constant((own[1] + moved).astype(np.float32))
    rewriter.replace(total.outputs[0], rewriter.add("Add", [product.outputs[0], bias]))
    ir.convenience.replace_all_uses_with(value, biased[0])
    return True


def _tokens_before(attention: ir.Node) -> ir.Value | None:
    """The values as tokens [B, N, heads * d], if nothing else reads them."""
    value = attention.inputs[_VALUE]
    for op_type in ("Transpose", "Reshape"):
        shape, node = static_shape(value), value.producer() if value is not None else None
        if value is None or shape is None or len(value.uses()) != 1:
            return None
        if len(shape) == 3:
            return value
        if node is None or node.op_type != op_type or (op_type == "Transpose" and not moves_heads(node)):
            return None
        value = node.inputs[0]
    return value if value is not None and len(value.uses()) == 1 and not value.is_graph_output() else None


def _product_behind(attention: ir.Node) -> ir.Node | None:
    """The product of the result's tokens with a constant matrix."""
    result = attention.outputs[0]
    while (product := only_reader(result, "MatMul")) is None:
        node = only_reader(result, "Transpose") or only_reader(result, "Reshape")
        if node is None or (node.op_type == "Transpose" and not moves_heads(node)):
            return None
        result = node.outputs[0]
    weight = product.inputs[1]
    return product if weight is not None and weight.const_value is not None and product.inputs[0] is result else None


def _sum_with_bias(value: ir.Value | None) -> tuple[ir.Value, np.ndarray] | None:
    """What a constant vector is added to, and that vector in float64."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Add":
        return None
    first, second = node.inputs
    if first is not None and first.const_value is not None:
        first, second = second, first
    if first is None or second is None or second.const_value is None or len(second.shape or ()) != 1:
        return None
    return first, second.const_value.numpy().astype(np.float64)
