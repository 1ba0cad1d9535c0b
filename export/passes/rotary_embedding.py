"""Pass `rotary_embedding`: the rotation of channel pairs becomes one node.

PyTorch rotates them with six elementwise nodes and five that pick and stack; `RotaryEmbedding` of opset 23 takes
tokens [B, N, heads * d] as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, remove_unused, reshaped, scalar, static_shape


class _Rotation(NamedTuple):
    """Pairs of channels, [B, N, heads, d / 2, 2], and the tables that rotate them, each [N, 1, d / 2]."""

    pairs: ir.Value
    cosine: np.ndarray
    sine: np.ndarray


def rotary_embedding(model: ir.Model) -> int:
    """Rotations of adjacent channel pairs by constant angles as `RotaryEmbedding`, in place; returns how many."""
    count = 0
    for node in list(model.graph):
        rotation = match_rotation(node) if node.op_type == "Concat" else None
        if rotation is not None:
            _rewrite_rotation(model.graph, node, rotation)
            count += 1
    remove_unused(model)
    return count


def match_rotation(concat: ir.Node) -> _Rotation | None:
    """`stack((even * cos - odd * sin, even * sin + odd * cos), -1)`."""
    parts = [value.producer() if value is not None else None for value in concat.inputs]
    rank = len(concat.outputs[0].shape or ())
    if len(parts) != 2 or rank != 5 or concat.attributes.get_int("axis", 0) not in (-1, 4):
        return None
    halves = []
    for part, op_type in zip(parts, ("Sub", "Add"), strict=True):
        if part is None or part.op_type != "Unsqueeze" or scalar(part.inputs[1]) not in (-1.0, 4.0):
            return None
        half = part.inputs[0].producer() if part.inputs[0] is not None else None
        if half is None or half.op_type != op_type:
            return None
        halves.append([_scaled(value) for value in half.inputs])
    (even, cosine), (odd, sine) = halves[0]
    if even is None or odd is None or cosine is None or sine is None:
        return None
    second = [(even, sine), (odd, cosine)]
    if [(id(a), id(b)) for a, b in halves[1]] != [(id(a), id(b)) for a, b in second]:
        return None
    pairs = _selected(even, 0)
    shape = static_shape(pairs)
    if pairs is None or pairs is not _selected(odd, 1) or shape is None or len(shape) != 5 or shape[-1] != 2:
        return None
    tables = [_table(value, shape) for value in (cosine, sine)]
    return None if tables[0] is None or tables[1] is None else _Rotation(pairs, tables[0], tables[1])


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """The factor that is computed and the one that is constant."""
    product = value.producer() if value is not None else None
    if product is None or product.op_type != "Mul":
        return None, None
    first, second = product.inputs
    if first is not None and first.const_value is not None:
        first, second = second, first
    return (first, second) if second is not None and second.const_value is not None else (None, None)


def _selected(value: ir.Value, index: int) -> ir.Value | None:
    """What `value` takes element `index` of the last axis from."""
    node = value.producer()
    if node is None or node.op_type != "Gather" or scalar(node.inputs[1]) != index:
        return None
    return node.inputs[0] if node.attributes.get_int("axis", 0) in (-1, 4) else None


def _table(value: ir.Value, shape: tuple[int, ...]) -> np.ndarray | None:
    """[B, N, d / 2] of a constant that is the same for every head."""
    assert value.const_value is not None
    batch, tokens, _, half, _ = shape
    array = value.const_value.numpy()
    array = array.reshape((1,) * (4 - array.ndim) + array.shape) if array.ndim <= 4 else array
    if array.ndim != 4 or array.shape[2] != 1 or array.shape[0] not in (1, batch):
        return None
    return np.ascontiguousarray(np.broadcast_to(array[:, :, 0], (batch, tokens, half)))


def _rewrite_rotation(graph: ir.Graph, concat: ir.Node, rotation: _Rotation) -> None:
    batch, tokens, heads, half, _ = static_shape(rotation.pairs) or ()
    rewriter = Rewriter(graph, concat)
    rows = reshaped(rewriter, rotation.pairs, (batch, tokens, heads * half * 2))
    tables = [rewriter.constant(table) for table in (rotation.cosine, rotation.sine)]
    rotated = rewriter.add("RotaryEmbedding", [rows, *tables], interleaved=1, num_heads=heads)
    rotated.shape = rows.shape
    rewriter.replace(concat.outputs[0], reshaped(rewriter, rotated, (batch, tokens, heads, half, 2)))
