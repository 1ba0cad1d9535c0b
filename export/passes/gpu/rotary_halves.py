"""Pass `rotary_halves`: channels that are rotated together lie half a head apart instead of side by side.

The order of channels within a head changes nothing in an attention whose queries and keys share it. It is that of the
columns of their weights, so it costs nothing, and TensorRT's kernel rotates eight channels at once instead of one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...rewriter import Rewriter, remove_unused, static_shape
from ..rotary_embedding import match_rotation

_QUERY, _KEY = 0, 1


class _Rotated(NamedTuple):
    """The nodes from a linear layer to an attention: product, bias, norm, split into pairs, stack of rotated pairs."""

    product: ir.Node
    total: ir.Node
    norm: ir.Node
    split: ir.Node
    stack: ir.Node


def rotary_halves(model: ir.Model) -> int:
    """Reorder queries and keys of every attention that rotates both, in place; returns how many tensors."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "Attention" and node.domain == "":
            queries, keys = (_rotated(node.inputs[index]) for index in (_QUERY, _KEY))
            if queries is not None and keys is not None:
                _rewrite(model.graph, queries)
                _rewrite(model.graph, keys)
                count += 2
    remove_unused(model)
    return count


def _rotated(value: ir.Value | None) -> _Rotated | None:
    """How an input of an attention comes about, if nothing else reads anything on the way."""
    moved = _only_from(value, "Transpose")
    joined = _only_from(_source(moved), "Reshape")
    stack = _only_from(_source(joined), "Concat")
    rotation = match_rotation(stack) if stack is not None else None
    if stack is None or rotation is None or len(rotation.pairs.uses()) != 2:
        return None
    split = rotation.pairs.producer()
    norm = _only_from(_source(split), "RMSNormalization")
    total = _only_from(_source(norm), "Add")
    product = _only_from(_source(total), "MatMul")
    if split is None or norm is None or total is None or product is None or split.op_type != "Reshape":
        return None
    ranks = [_rank_of_constant(node.inputs[1]) for node in (norm, total, product)]
    return _Rotated(product, total, norm, split, stack) if ranks == [1, 1, 2] else None


def _only_from(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes `value`, if it is of that type and one node alone reads it."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != op_type or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return node


def _source(node: ir.Node | None) -> ir.Value | None:
    return None if node is None else node.inputs[0]


def _rank_of_constant(value: ir.Value | None) -> int | None:
    return None if value is None or value.const_value is None else value.const_value.numpy().ndim


def _rewrite(graph: ir.Graph, rotated: _Rotated) -> None:
    batch, tokens, heads, half, _ = static_shape(rotated.split.outputs[0]) or ()
    # The first of each pair, then the second of each.
    order = np.arange(heads * half * 2).reshape(heads, half, 2).transpose(0, 2, 1).reshape(-1)
    for node in (rotated.product, rotated.total, rotated.norm):
        weight = node.inputs[1]
        assert weight is not None and weight.const_value is not None  # noqa: PT018
        array = np.ascontiguousarray(weight.const_value.numpy()[..., order])
        node.replace_input_with(1, Rewriter(graph, node).constant(array))
    rewriter = Rewriter(graph, rotated.split)
    rotated.split.replace_input_with(1, rewriter.constant(np.array([batch, tokens, heads, 2, half], np.int64)))
    rotated.split.outputs[0].shape = ir.Shape([batch, tokens, heads, 2, half])
    for pick in rotated.split.outputs[0].consumers():
        pick.attributes["axis"] = ir.AttrInt64("axis", 3)
    axis = rewriter.constant(np.array([3], np.int64))
    for part in rotated.stack.inputs:
        unsqueeze = part.producer() if part is not None else None
        assert unsqueeze is not None  # the rotation was matched
        unsqueeze.replace_input_with(1, axis)
        unsqueeze.outputs[0].shape = ir.Shape([batch, tokens, heads, 1, half])
    rotated.stack.attributes["axis"] = ir.AttrInt64("axis", 3)
    rotated.stack.outputs[0].shape = ir.Shape([batch, tokens, heads, 2, half])
