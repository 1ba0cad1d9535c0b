"""RAP's hybrid attention that is written out, two attentions and their weighted sum, as one `rap::HybridAttention`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ..hybrid_attention.operator import DOMAIN, OP_TYPE, VERSION
from ..rewriter import Rewriter, remove_unused, reshaped, scalar, static_shape
from .movement import Places, is_movement, moved, places, rearranged, source_of

_CLOSE = 1e-5


@dataclass(frozen=True)
class _Branch:
    """An attention whose result, moved by `nodes` and times `weight`, is one side of a sum."""

    attention: ir.Node
    nodes: tuple[ir.Node, ...]
    weight: float


def hybrid_nodes(model: ir.Model) -> int:
    """Rewrite every pair of attentions, one over all tokens and one frame by frame, whose weighted results are added.

    In place; returns how many there were. Both take the same queries, have the scale 1 / sqrt(d) and no mask.
    """
    count = 0
    for total in [node for node in model.graph if node.op_type in ("Add", "Sub") and node.domain == ""]:
        for window, full in _pairs(total):
            if (found := _hybrid(window, full)) is not None:
                _rewrite(model.graph, total, window, full, *found)
                count += 1
                break
    if count:
        model.opset_imports.setdefault(DOMAIN, VERSION)
    remove_unused(model)
    return count


def _pairs(total: ir.Node) -> Iterator[tuple[_Branch, _Branch]]:
    """The attentions that a sum weighs, as window and full branch, both ways round; weights add up to one."""
    first, second = total.inputs
    if total.op_type == "Add":
        found = [_sum(first, second), _blend(first, second, 1.0), _blend(second, first, 1.0)]
    else:
        found = [_blend(first, second, -1.0)]
    for one, other in found:
        if one is not None and other is not None and abs(one.weight + other.weight - 1.0) < _CLOSE:
            yield one, other
            yield other, one


def _sum(first: ir.Value | None, second: ir.Value | None) -> tuple[_Branch | None, _Branch | None]:
    """Of `alpha * window + (1 - alpha) * full`, the branches."""
    return _branch(first), _branch(second)


def _blend(base: ir.Value | None, share: ir.Value | None, sign: float) -> tuple[_Branch | None, _Branch | None]:
    """Of `base + sign * weight * (one - other)`, where `base` is one of the two, the branches: `torch.lerp`."""
    difference, weight = _weighed(share)
    node = difference.producer() if difference is not None else None
    if node is None or node.op_type != "Sub" or base not in node.inputs:
        return None, None
    one, other = (_branch(value) for value in node.inputs)
    if one is None or other is None:
        return None, None
    is_one = float(node.inputs[0] is base)
    return (
        replace(one, weight=one.weight * (is_one + sign * weight)),
        replace(other, weight=other.weight * (1.0 - is_one - sign * weight)),
    )


def _weighed(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Mul":
        return value, 1.0
    first, second = node.inputs
    if scalar(first) is not None:
        first, second = second, first
    number = scalar(second)
    return (value, 1.0) if number is None else (first, number)


def _branch(value: ir.Value | None) -> _Branch | None:
    """The attention that `value` comes from by movement and constant factors alone."""
    weight, nodes = 1.0, list[ir.Node]()
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Attention" and node.domain == "":
            return _Branch(node, tuple(nodes), weight) if _is_plain(node) else None
        if is_movement(node):
            nodes.insert(0, node)
            value = node.inputs[0]
            continue
        plain, factor = _weighed(value)
        if plain is value or static_shape(plain) != static_shape(value):
            return None
        value, weight = plain, weight * factor
    return None


def _is_plain(attention: ir.Node) -> bool:
    """Heads in front, static, no mask, and the usual scale, which is what the operator is defined with."""
    shapes = [static_shape(value) for value in attention.inputs]
    if len(shapes) != 3 or len(attention.outputs) != 1 or any(shape is None or len(shape) != 4 for shape in shapes):
        return False
    softcap = attention.attributes.get("softcap")
    if attention.attributes.get_int("is_causal", 0) or (softcap is not None and softcap.as_float() != 0.0):
        return False
    query, key, value = shapes
    assert query is not None
    usual = 1.0 / math.sqrt(query[-1])
    same = key is not None and value is not None and query[:2] == key[:2] == value[:2]
    scale = attention.attributes.get("scale")
    return same and (scale is None or math.isclose(scale.as_float(), usual, rel_tol=1e-5))


def _frames(window: _Branch, full: _Branch) -> int:
    """Into how many frames the window's attention cuts the tokens; 0 if it is none of these."""
    cut, whole = (static_shape(branch.attention.inputs[0]) or () for branch in (window, full))
    frames = cut[0] // whole[0]
    matches = frames > 1 and (frames * whole[0], whole[1], whole[2], whole[3]) == (
        cut[0],
        cut[1],
        frames * cut[2],
        cut[3],
    )
    return frames if matches else 0


def _cut(numbers: Places, frames: int) -> Places:
    """[B, heads, tokens, d] as the window's attention has it, [B * frames, heads, tokens / frames, d]."""
    batch, heads, tokens, width = numbers.shape
    apart = numbers.reshape(batch, heads, frames, tokens // frames, width)
    return apart.swapaxes(1, 2).reshape(batch * frames, heads, tokens // frames, width)


def _hybrid(window: _Branch, full: _Branch) -> tuple[int, Places] | None:
    """Frames, and where the sum has the results, if the branches are those of one hybrid attention."""
    frames = _frames(window, full)
    if not frames or not _same_queries(window, full, frames):
        return None
    result = _same_places(window, full, frames)
    return None if result is None else (frames, result)


def _same_queries(window: _Branch, full: _Branch, frames: int) -> bool:
    values = [branch.attention.inputs[0] for branch in (window, full)]
    (cut, cut_nodes), (whole, whole_nodes) = (source_of(value) for value in values if value is not None)
    return cut is whole and np.array_equal(places(cut, cut_nodes), _cut(places(whole, whole_nodes), frames))


def _same_places(window: _Branch, full: _Branch, frames: int) -> Places | None:
    """Where the sum has the full attention's result, if it has the window's there too."""
    shape = static_shape(full.attention.outputs[0]) or ()
    numbers = np.arange(math.prod(shape)).reshape(shape)
    result = moved(numbers, full.nodes)
    return result if np.array_equal(moved(_cut(numbers, frames), window.nodes), result) else None


def _rewrite(graph: ir.Graph, total: ir.Node, window: _Branch, full: _Branch, frames: int, result: Places) -> None:
    rewriter = Rewriter(graph, total)
    batch, heads, _, _ = static_shape(full.attention.inputs[0]) or ()
    query = full.attention.inputs[0]
    inputs = [query, *window.attention.inputs[1:], *full.attention.inputs[1:]]
    rows = [_tokens(rewriter, value, batch) for value in inputs]
    output = rewriter.add(f"{DOMAIN}::{OP_TYPE}", rows, num_heads=heads, frames=frames, alpha=float(window.weight))
    shape = static_shape(full.attention.outputs[0]) or ()
    tokens = (shape[0], shape[2], shape[1], shape[3])
    output.shape = ir.Shape((shape[0], shape[2], shape[1] * shape[3]))
    # Of tokens, where the attention had heads in front.
    behind = np.arange(result.size).reshape(tokens).swapaxes(1, 2).reshape(-1)[result]
    value = rearranged(rewriter, reshaped(rewriter, output, tokens), behind)
    assert value is not None
    rewriter.replace(total.outputs[0], value)


def _tokens(rewriter: Rewriter, value: ir.Value | None, batch: int) -> ir.Value:
    """Heads in front, [B, heads, N, d] or frame by frame, as tokens [batch, N, heads * d]."""
    assert value is not None
    shape = static_shape(value) or ()
    source, nodes = source_of(value)
    rows = shape[0] * shape[2] // batch
    wanted = places(source, nodes).swapaxes(1, 2).reshape(batch, rows, shape[1] * shape[3])
    tokens = rearranged(rewriter, source, wanted)
    if tokens is None:
        numbers = np.arange(math.prod(shape)).reshape(shape)
        tokens = rearranged(rewriter, value, numbers.swapaxes(1, 2).reshape(wanted.shape))
    assert tokens is not None
    return tokens
