"""Attention that is written out, softmax between two products, as one `Attention`.

However heads and tokens were put in order, queries, keys and values are taken from where they were tokens or heads
last, so that the passes find them as PyTorch's own attention leaves them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, remove_unused, static_shape
from .movement import is_movement, laid_out, moved, places, rearranged, source_of, unscaled


class NotAttentionError(Exception):
    """Why a softmax between products is left as it is, as a clause."""


@dataclass(frozen=True)
class _Rows:
    """Rows [..., tokens, width], which `value` has with its last two axes `turned`."""

    value: ir.Value
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows."""
        shape = static_shape(self.value)
        if shape is None:
            raise NotAttentionError("a size is not known before it runs")
        return (*shape[:-2], shape[-1], shape[-2]) if self.turned else shape


def attention_nodes(model: ir.Model) -> tuple[int, dict[str, str]]:
    """Rewrite every attention that is written out, in place.

    Returns:
        How many there were, and why others stay, by the softmax's name.
    """
    count, left = 0, {}
    for softmax in [node for node in model.graph if node.op_type == "Softmax" and node.domain == ""]:
        try:
            count += _rewrite(model.graph, softmax)
        except NotAttentionError as why:
            left[str(softmax.name)] = str(why)
    remove_unused(model)
    return count, left


def _rewrite(graph: ir.Graph, softmax: ir.Node) -> bool:
    if (scores := _scores(softmax)) is None:
        return False
    query, key, scale = scores
    product, probabilities_first = _product_behind(softmax)
    values = product.inputs[1 if probabilities_first else 0]
    assert values is not None
    operands = (query, key, _Rows(values, turned=not probabilities_first))
    if len({rows.shape[:-2] for rows in operands}) > 1:
        raise NotAttentionError("keys or values are shared between heads")
    lead = _heads(softmax, query)
    rewriter = Rewriter(graph, product)
    usual = math.isclose(scale, 1.0 / math.sqrt(query.shape[-1]), rel_tol=1e-6)
    inputs = [_four_axes(rewriter, rows, lead) for rows in operands]
    output = rewriter.add("Attention", inputs, **({} if usual else {"scale": scale}))
    output.shape = ir.Shape((*lead, query.shape[-2], operands[2].shape[-1]))
    _hand_over(rewriter, output, product.outputs[0], turned=not probabilities_first)
    return True


def _scores(softmax: ir.Node) -> tuple[_Rows, _Rows, float] | None:
    """Queries, keys and their product's scale, if the softmax is taken of one of two tensors that are computed."""
    value, scale, turned = softmax.inputs[0], 1.0, False
    rank = len(static_shape(value) or ())
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "MatMul":
            if any(operand is None or operand.const_value is not None for operand in node.inputs):
                return None
            if rank < 2:
                raise NotAttentionError("a size is not known before it runs")
            if softmax.attributes.get_int("axis", -1) not in (-1, rank - 1):
                raise NotAttentionError("its softmax is not over the last axis")
            (first, by_first), (second, by_second) = (
                unscaled(operand) for operand in node.inputs if operand is not None
            )
            operands = (_Rows(first, turned=False), _Rows(second, turned=True))
            query, key = reversed(operands) if turned else operands
            return query, key, scale * by_first * by_second
        if node.op_type in ("Mul", "Div"):
            plain, factor = unscaled(value)
            if plain is value:
                return None
            value, scale = plain, scale * factor
        elif node.op_type in ("Add", "Where", "Sub"):
            if any(_from_product(operand) for operand in node.inputs):
                raise NotAttentionError("a mask or a bias is added to its scores")
            return None
        elif is_movement(node) and (swap := _keeps_matrices(node)) is not None:
            value, turned = node.inputs[0], turned != swap
        else:
            return None
    return None


def _from_product(value: ir.Value | None) -> bool:
    """Whether a value is a product of two tensors, scaled or moved."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "MatMul":
            return all(operand is not None and operand.const_value is None for operand in node.inputs)
        if not is_movement(node) and node.op_type not in ("Mul", "Div"):
            return False
        value = next((operand for operand in node.inputs if operand is not None and operand.const_value is None), None)
    return False


def _keeps_matrices(node: ir.Node) -> bool | None:
    """Whether a movement swaps the last two axes; None if it does not keep them together."""
    source, result = static_shape(node.inputs[0]) or (), static_shape(node.outputs[0]) or ()
    if len(source) < 2 or len(result) < 2:
        return None
    if node.op_type != "Transpose":
        return False if source[-2:] == result[-2:] else None
    perm = [int(axis) for axis in node.attributes.get_ints("perm", list(reversed(range(len(source)))))]
    rank = len(perm)
    if perm[:-2] != list(range(rank - 2)):
        return None
    return perm[-2:] == [rank - 1, rank - 2]


def _product_behind(softmax: ir.Node) -> tuple[ir.Node, bool]:
    """The product of the probabilities with values, and whether the probabilities are its first factor."""
    value, turned = softmax.outputs[0], False
    while True:
        readers = list(value.uses())
        if value.is_graph_output() or len(readers) != 1:
            raise NotAttentionError("its probabilities are read by something else too")
        node, index = readers[0].node, readers[0].idx
        if node.op_type == "MatMul":
            if (index == 1) != turned:
                raise NotAttentionError("its probabilities are summed over queries")
            return node, index == 0
        swap = _keeps_matrices(node) if is_movement(node) else None
        if swap is None:
            raise NotAttentionError(f"a {node.op_type} stands between its softmax and its values")
        value, turned = node.outputs[0], turned != swap


def _heads(softmax: ir.Node, query: _Rows) -> tuple[int, int]:
    """Batch and heads, of which only the product is sure where they were one axis."""
    scores = static_shape(softmax.inputs[0]) or ()
    if len(scores) > 3:
        return math.prod(scores[:-3]), scores[-3]
    *batch, _, width = query.shape
    total, source = math.prod(batch), source_of(query.value)[0]
    channels = (static_shape(source) or (width,))[-1]
    heads = channels // width if channels % width == 0 and total % (channels // width) == 0 else total
    return total // heads, heads


def _four_axes(rewriter: Rewriter, rows: _Rows, lead: tuple[int, int]) -> ir.Value:
    """Rows as [batch, heads, tokens, width]."""
    source, nodes = source_of(rows.value)
    # From where the author had tokens or heads last; else the way there stays, and its end is put in order.
    for start, steps in ((source, nodes), (rows.value, [])):
        wanted = places(start, steps)
        wanted = wanted.swapaxes(-1, -2) if rows.turned else wanted
        laid = laid_out(rewriter, start, wanted.reshape(*lead, *wanted.shape[-2:]))
        if laid is not None:
            return laid
    raise AssertionError("a product's factor is at most turned")


def _hand_over(rewriter: Rewriter, output: ir.Value, old: ir.Value, *, turned: bool) -> None:
    """Readers of what was moved from `old` read `output`, [batch, heads, tokens, width], moved there directly."""
    shape = static_shape(output) or ()
    made = np.arange(math.prod(shape)).reshape(shape)
    first = (made.swapaxes(-1, -2) if turned else made).reshape(static_shape(old) or ())
    end, nodes = old, []
    while len(end.uses()) == 1 and not end.is_graph_output() and is_movement(node := end.consumers()[0]):
        nodes.append(node)
        end = node.outputs[0]
    for value, wanted in ((end, moved(first, nodes)), (old, first)):
        if (result := rearranged(rewriter, output, wanted)) is not None:
            rewriter.replace(value, result)
            return
    raise AssertionError("a product is at most turned")
