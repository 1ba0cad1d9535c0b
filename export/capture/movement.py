"""What nodes that only move data do to it: followed on the numbers 0, 1, 2, ... in place of the data.

However a model's author splits heads, frames and tokens, and puts them in order, the same numbers come out in the same
places. So two ways to move data are compared by what they do and not by how they are written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..rewriter import Rewriter, reshaped, scalar, static_shape

_RESHAPING = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"))
Places = NDArray[np.int64]
"""For every element, which element of the source it is."""


def is_movement(node: ir.Node | None) -> bool:
    """Whether a node moves all elements of its first input and nothing else; its shapes are static."""
    if node is None or node.domain != "" or node.op_type not in _RESHAPING | {"Transpose"}:
        return False
    return static_shape(node.inputs[0]) is not None and static_shape(node.outputs[0]) is not None


def source_of(value: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """What a value is moved from, and the nodes that move it, the first of them first."""
    nodes: list[ir.Node] = []
    while (node := value.producer()) is not None and is_movement(node):
        nodes.insert(0, node)
        source = node.inputs[0]
        assert source is not None
        value = source
    return value, nodes


def places(source: ir.Value, nodes: Sequence[ir.Node]) -> Places:
    """Where `nodes` leave the elements of `source`, whose shape is static."""
    shape = static_shape(source)
    assert shape is not None
    return moved(np.arange(math.prod(shape)).reshape(shape), nodes)


def moved(numbers: Places, nodes: Sequence[ir.Node]) -> Places:
    """What `nodes` make of an array."""
    for node in nodes:
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm", list(reversed(range(numbers.ndim))))
            numbers = numbers.transpose([int(axis) for axis in perm])
        else:
            numbers = numbers.reshape(static_shape(node.outputs[0]) or ())
    return numbers


def laid_out(rewriter: Rewriter, source: ir.Value, wanted: Places) -> ir.Value | None:
    """`source` with its elements where `wanted` has them, by one reshape and one transposition at most.

    None if that takes more.
    """
    order = _order(wanted)
    if order is None:
        return None
    apart = [wanted.shape[axis] for axis in order]
    perm = [order.index(axis) for axis in range(wanted.ndim)]
    value = reshaped(rewriter, source, apart)
    if perm != sorted(perm):
        value = rewriter.add("Transpose", [value], perm=perm)
        value.shape = ir.Shape(wanted.shape)
    return value


def rearranged(rewriter: Rewriter, source: ir.Value, wanted: Places) -> ir.Value | None:
    """`source` with its elements where `wanted` has them, by one transposition and one reshape at most.

    None if that takes more.
    """
    shape = static_shape(source) or ()
    numbers = np.arange(wanted.size).reshape(shape)
    # Heads go back behind tokens in nearly every model.
    for perm in sorted(permutations(range(len(shape))), key=lambda perm: perm != (0, 2, 1, 3)):
        if np.array_equal(numbers.transpose(perm).reshape(wanted.shape), wanted):
            value = source
            if list(perm) != sorted(perm):
                value = rewriter.add("Transpose", [value], perm=list(perm))
                value.shape = ir.Shape([shape[axis] for axis in perm])
            return reshaped(rewriter, value, wanted.shape)
    return None


def _order(wanted: Places) -> list[int] | None:
    """The axes of `wanted` from the slowest to the fastest in its source, if it is no more than a transposition."""
    # An axis of one element has no step: it stays where it is among the others.
    moving = [axis for axis, size in enumerate(wanted.shape) if size > 1]
    by_step = sorted(moving, key=lambda axis: -int(wanted.take(1, axis).flat[0]))
    order = [by_step.pop(0) if axis in moving else axis for axis in range(wanted.ndim)]
    expected = np.arange(wanted.size).reshape([wanted.shape[axis] for axis in order])
    return order if np.array_equal(expected, wanted.transpose(order)) else None


def unscaled(value: ir.Value) -> tuple[ir.Value, float]:
    """A value without the constants that it is multiplied with or divided by last, and their product."""
    factor = 1.0
    while (node := value.producer()) is not None and node.domain == "" and node.op_type in ("Mul", "Div"):
        first, second = node.inputs
        if node.op_type == "Mul" and scalar(first) is not None:
            first, second = second, first
        number = scalar(second)
        if first is None or number is None or static_shape(first) != static_shape(value):
            break
        if node.op_type == "Div" and number == 0.0:
            break
        factor = factor * number if node.op_type == "Mul" else factor / number
        value = first
    return value, factor
