"""Einsum as a matrix product: TensorRT fuses products, calibration quantises them, and attention is found by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from ..rewriter import Rewriter, reshaped, rewrite_each, static_shape, transposed


def einsum_products(model: ir.Model) -> int:
    """Rewrite every `Einsum` of two tensors that is a matrix product of static shapes, in place; returns how many."""
    return rewrite_each(model, "Einsum", _rewrite)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    shapes = [static_shape(value) for value in node.inputs]
    if len(shapes) != 2 or shapes[0] is None or shapes[1] is None:
        return False
    terms = _terms(node.attributes.get_string("equation", ""), len(shapes[0]), len(shapes[1]))
    if terms is None:
        return False
    first, second, result = terms
    sizes = dict(zip(first, shapes[0], strict=True)) | dict(zip(second, shapes[1], strict=True))
    batch = [label for label in result if label in first and label in second]
    summed = [label for label in first if label in second and label not in result]
    rows, columns = ([label for label in term if label not in batch + summed] for term in (first, second))
    broadcast = any(
        size != sizes[label]
        for term, shape in zip((first, second), shapes, strict=True)
        for label, size in zip(term, shape or (), strict=True)
    )
    if broadcast or not summed or any(label not in result for label in rows + columns):
        return False

    def size(labels: Sequence[str]) -> int:
        return math.prod(sizes[label] for label in labels)

    rewriter = Rewriter(graph, node)
    lead = [sizes[label] for label in batch]
    # Without a batch the second is a matrix, as a linear layer's weight is, and the first keeps its axes.
    ahead = [*lead, size(rows)] if batch else [sizes[label] for label in rows]
    left = _arranged(rewriter, node.inputs[0], first, [*batch, *rows, *summed], [*ahead, size(summed)])
    right = _arranged(
        rewriter, node.inputs[1], second, [*batch, *summed, *columns], [*lead, size(summed), size(columns)]
    )
    product = rewriter.add("MatMul", [left, right])
    product.shape = ir.Shape([*ahead, size(columns)])
    made = [*batch, *rows, *columns]
    apart = reshaped(rewriter, product, [sizes[label] for label in made])
    order = [made.index(label) for label in result]
    rewriter.replace(node.outputs[0], apart if order == sorted(order) else transposed(rewriter, apart, order))
    return True


def _terms(equation: str, *ranks: int) -> tuple[str, str, str] | None:
    """The labels of both inputs and of the result, an ellipsis spelt out; None where a label is there twice."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if not arrow or len(inputs) != 2:
        return None
    # An ellipsis stands for the same axes everywhere, counted from the last.
    hidden = [rank - len(term) + 3 if "..." in term else 0 for term, rank in zip(inputs, ranks, strict=True)]
    letters = [chr(ord("\u03b1") + index) for index in range(max(hidden))]
    first, second = (
        term.replace("...", "".join(letters[len(letters) - count :]))
        for term, count in zip(inputs, hidden, strict=True)
    )
    last = result.replace("...", "".join(letters))
    return None if any(len(set(term)) != len(term) for term in (first, second, last)) else (first, second, last)


def _arranged(
    rewriter: Rewriter, value: ir.Value | None, labels: str, order: Sequence[str], shape: Sequence[int]
) -> ir.Value:
    assert value is not None
    perm = [labels.index(label) for label in order]
    if perm != sorted(perm):
        value = transposed(rewriter, value, perm)
    return reshaped(rewriter, value, shape)
