"""Pass `sampled_rows`: a map is bent by gathering rows of channels instead of sampling plane after plane.

ONNX Runtime's `GridSample` finds a place's four neighbours anew for every channel. Channels last, they are four rows of
a wide map; of a narrow one, such as a picture, the four lie side by side in a single row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..rewriter import TO_FIRST, TO_LAST, Rewriter, reshaped, rewrite_each, static_shape, transposed

FEWEST_CHANNELS = 16  # a wide map's; four neighbours of fewer channels are gathered at once
_SPREADING = frozenset(("Expand", "Reshape", "Unsqueeze"))
_CORNERS = 4
_EXACT = 2**24  # whole numbers that float32 tells apart


def sampled_rows(model: ir.Model) -> int:
    """Rewrite every bilinear `GridSample` with repeated edges in place; returns how many."""
    return rewrite_each(model, "GridSample", _rewrite)


@dataclass(frozen=True)
class _Places:
    """Where a map of `rows` [pictures * height * width, channels] is sampled.

    Attributes:
        rows: the map, channels last.
        width: of the map.
        total: places of all pictures.
        index: int32 [total], the row of each place's upper left neighbour.
        right: float32 [total], how much of the neighbours to the right a place takes.
        below: float32 [total], how much of the lower ones.
    """

    rows: ir.Value
    width: int
    total: int
    index: ir.Value
    right: ir.Value
    below: ir.Value


def _rewrite(graph: ir.Graph, sample: ir.Node) -> bool:
    picture, grid = sample.inputs
    shape, places = static_shape(picture), static_shape(grid)
    mode = sample.attributes.get_string("mode", "linear")
    edges = (sample.attributes.get_string("padding_mode", "zeros"), sample.attributes.get_int("align_corners", 0))
    if picture is None or grid is None or shape is None or places is None or len(shape) != 4:
        return False
    count, channels, height, width = shape
    if mode not in ("linear", "bilinear") or edges != ("border", 0):
        return False
    if min(height, width) < 2 or height * width > _EXACT:
        return False
    rewriter = Rewriter(graph, sample)
    source = _only_picture(picture, shape)
    rows = transposed(rewriter, source, TO_LAST)
    pictures = (static_shape(source) or shape)[0]
    rows = reshaped(rewriter, rows, (pictures * height * width, channels))
    total = math.prod(places[:3])
    columns, lines = _planes(rewriter, grid, total)
    left, right = _neighbour(rewriter, columns, width)
    above, below = _neighbour(rewriter, lines, height)
    first = rewriter.add("Mul", [above, rewriter.constant(np.array(width, np.float32))])
    index = rewriter.add("Cast", [rewriter.add("Add", [first, left])], to=ir.DataType.INT32)
    index.dtype = ir.DataType.INT32
    if pictures > 1:
        begins = np.repeat(np.arange(count) * height * width, total // count).astype(np.int32)
        index = rewriter.add("Add", [index, rewriter.constant(begins)])
    found = _Places(rows, width, total, index, right, below)
    if channels >= FEWEST_CHANNELS:
        bent = reshaped(rewriter, _four_rows(rewriter, found), (count, *places[1:3], channels))
        bent = rewriter.add("Transpose", [bent], perm=list(TO_FIRST))
    else:
        bent = reshaped(rewriter, _one_row(rewriter, found, count), (count, channels, *places[1:3]))
    rewriter.replace(sample.outputs[0], bent)
    return True


def _planes(rewriter: Rewriter, grid: ir.Value, total: int) -> tuple[ir.Value, ir.Value]:
    """The grid's columns and its lines, each [total] in -1..1; those that were stacked to make it, where they were."""
    stack = grid.producer()
    if stack is not None and stack.op_type == "Concat" and len(stack.inputs) == 2:
        parts = [static_shape(value) for value in stack.inputs]
        if all(part is not None and len(part) == 4 and part[-1] == 1 for part in parts):
            columns, lines = (_before_unsqueeze(value) for value in stack.inputs if value is not None)
            return reshaped(rewriter, columns, (total,)), reshaped(rewriter, lines, (total,))
    pairs = reshaped(rewriter, grid, (total, 2))

    def plane(axis: int) -> ir.Value:
        return rewriter.add("Gather", [pairs, rewriter.constant(np.array(axis))], axis=1)

    return plane(0), plane(1)


def _before_unsqueeze(value: ir.Value) -> ir.Value:
    producer = value.producer()
    source = producer.inputs[0] if producer is not None and producer.op_type == "Unsqueeze" else None
    return value if source is None or static_shape(source) is None else source


def _neighbour(rewriter: Rewriter, place: ir.Value, size: int) -> tuple[ir.Value, ir.Value]:
    """The neighbour before each place in -1..1 along an axis of `size`, and how much the one behind it counts."""

    def constant(value: float) -> ir.Value:
        return rewriter.constant(np.array(value, np.float32))

    place = rewriter.add("Add", [rewriter.add("Mul", [place, constant(size / 2)]), constant(size / 2 - 0.5)])
    place = rewriter.add("Clip", [place, constant(0), constant(size - 1)])
    # The neighbour behind the last row or column is the last itself, at a weight of one.
    first = rewriter.add("Min", [rewriter.add("Floor", [place]), constant(size - 2)])
    return first, rewriter.add("Sub", [place, first])


def _four_rows(rewriter: Rewriter, places: _Places) -> ir.Value:
    """[total, channels]: four rows for each place, and between them as it lies."""
    axis = rewriter.constant(np.array([1]))
    right, below = (rewriter.add("Unsqueeze", [weight, axis]) for weight in (places.right, places.below))

    def neighbour(offset: int) -> ir.Value:
        there = places.index
        if offset:
            there = rewriter.add("Add", [there, rewriter.constant(np.array(offset, np.int32))])
        return rewriter.add("Gather", [places.rows, there], axis=0)

    def between(one: ir.Value, other: ir.Value, weight: ir.Value) -> ir.Value:
        change = rewriter.add("Mul", [rewriter.add("Sub", [other, one]), weight])
        return rewriter.add("Add", [one, change])

    upper, lower = (between(neighbour(line), neighbour(line + 1), right) for line in (0, places.width))
    return between(upper, lower, below)


def _one_row(rewriter: Rewriter, places: _Places, count: int) -> ir.Value:
    """[count, channels, total / count]: the four neighbours in one row, times their weights, in planes."""
    size, channels = static_shape(places.rows) or (0, 0)
    begin = rewriter.constant(np.array([0]))
    ends = rewriter.add("Slice", [places.rows, begin, rewriter.constant(np.array([places.width + 1])), begin])
    longer = rewriter.add("Concat", [places.rows, ends], axis=0)

    def moved(offset: int) -> ir.Value:
        bounds = [rewriter.constant(np.array([number])) for number in (offset, offset + size)]
        return rewriter.add("Slice", [longer, *bounds, begin])

    corners = rewriter.add("Concat", [moved(offset) for offset in (0, 1, places.width, places.width + 1)], axis=1)
    found = rewriter.add("Gather", [corners, places.index], axis=0)
    one = rewriter.add(
        "ConstantOfShape",
        [rewriter.constant(np.array([1, places.total]))],
        value=ir.tensor(np.ones(1, np.float32)),
    )
    one.dtype = ir.DataType.FLOAT
    line = rewriter.constant(np.array([0]))
    both = rewriter.add("Mul", [places.right, places.below])
    terms = [rewriter.add("Unsqueeze", [value, line]) for value in (places.right, places.below, both)]
    basis = rewriter.add("Concat", [one, *terms], axis=0)
    # Of (1, right, below, right * below), the weights of the four corners; each for all channels.
    corner = np.array([[1, 0, 0, 0], [-1, 1, 0, 0], [-1, 0, 1, 0], [1, -1, -1, 1]], np.float32)
    weights = rewriter.add("Gemm", [basis, rewriter.constant(np.repeat(corner, channels, axis=1))], transA=1)
    weighed = rewriter.add("Mul", [found, weights])
    weighed = reshaped(rewriter, weighed, (count, places.total // count, _CORNERS * channels))
    weighed = rewriter.add("Transpose", [weighed], perm=[0, 2, 1])
    # A product with the transposed rows gives planes, and ONNX Runtime makes one operator of both.
    return rewriter.add(
        "MatMul", [rewriter.constant(np.tile(np.eye(channels, dtype=np.float32), (1, _CORNERS))), weighed]
    )


def _only_picture(picture: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The one picture [1, C, H, W] that `picture` repeats along its first axis, else `picture` itself."""
    value = picture
    while (producer := value.producer()) is not None and producer.op_type in _SPREADING:
        found = static_shape(value)
        if found is None or found[-3:] != shape[1:] or producer.inputs[0] is None:
            return picture
        value = producer.inputs[0]
    return value if static_shape(value) == (1, *shape[1:]) else picture
