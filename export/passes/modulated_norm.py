"""Pass `modulated_norm`: adaLN's scale and shift become those of the `LayerNormalization` that they follow.

`LN(x) * scale + shift` is one kernel instead of three when scale and shift, the same for every token, are the
normalisation's own inputs; they need not be constants.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, only_reader, reshaped, rewrite_each, static_shape


def modulated_norm(model: ir.Model) -> int:
    """Rewrite every plain layer normalisation that is scaled and shifted, in place; returns how many."""
    return rewrite_each(model, "LayerNormalization", _rewrite)


def _is_plain(norm: ir.Node) -> bool:
    """Whether it is over the last axis and has no scale and shift of its own."""
    rank = len(norm.outputs[0].shape or ())
    if norm.attributes.get_int("axis", -1) not in (-1, rank - 1) or len(norm.outputs) != 1:
        return False
    for value, neutral in zip(norm.inputs[1:], (1.0, 0.0), strict=False):
        if value is not None and (value.const_value is None or np.any(value.const_value.numpy() != neutral)):
            return False
    return True


def _rewrite(graph: ir.Graph, norm: ir.Node) -> bool:
    if not _is_plain(norm):
        return False
    product = only_reader(norm.outputs[0], "Mul")
    total = None if product is None else only_reader(product.outputs[0], "Add")
    shape = static_shape(norm.outputs[0])
    if product is None or total is None or shape is None:
        return False
    scale, shift = _other(product, norm.outputs[0]), _other(total, product.outputs[0])
    if not (_is_per_channel(scale, shape) and _is_per_channel(shift, shape)):
        return False
    rewriter = Rewriter(graph, total)
    inputs = [norm.inputs[0], *(reshaped(rewriter, value, shape[-1:]) for value in (scale, shift))]
    result = rewriter.add("LayerNormalization", inputs, axis=-1, epsilon=norm.attributes.get_float("epsilon", 1e-5))
    rewriter.replace(total.outputs[0], result)
    return True


def _other(node: ir.Node, value: ir.Value) -> ir.Value:
    first, second = node.inputs
    other = second if first is value else first
    assert other is not None
    return other


def _is_per_channel(value: ir.Value, shape: tuple[int, ...]) -> bool:
    found = static_shape(value)
    return found is not None and len(found) <= len(shape) and found == (1,) * (len(found) - 1) + shape[-1:]
