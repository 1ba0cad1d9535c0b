"""Pass `sampled_rows`: a feature map is bent by gathering rows of channels instead of sampling plane after plane.

ONNX Runtime's `GridSample` finds a place's four neighbours anew for every channel. Channels last, they are four rows.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..rewriter import TO_FIRST, TO_LAST, Rewriter, reshaped, rewrite_each, static_shape, transposed

FEWEST_CHANNELS = 16  # with three, ONNX Runtime's own is as quick
_SPREADING = frozenset(("Expand", "Reshape", "Unsqueeze"))


def sampled_rows(model: ir.Model) -> int:
    """Rewrite every bilinear `GridSample` of wide maps with repeated edges in place; returns how many."""
    return rewrite_each(model, "GridSample", _rewrite)


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
    if channels < FEWEST_CHANNELS or min(height, width) < 2:
        return False
    rewriter = Rewriter(graph, sample)
    source = _only_picture(picture, shape)
    rows = transposed(rewriter, source, TO_LAST)
    pictures = (static_shape(source) or shape)[0]
    rows = reshaped(rewriter, rows, (pictures * height * width, channels))

    def constant(*values: float) -> ir.Value:
        return rewriter.constant(np.array(values, np.float32))

    total = math.prod(places[:3])
    scale, middle = constant(width / 2, height / 2), constant(width / 2 - 0.5, height / 2 - 0.5)
    place = rewriter.add("Add", [rewriter.add("Mul", [reshaped(rewriter, grid, (total, 2)), scale]), middle])
    last, low = constant(width - 1, height - 1), rewriter.constant(np.array(0, np.float32))
    place = rewriter.add("Max", [rewriter.add("Min", [place, last]), low])
    # The neighbour behind the last row or column is the last itself, at a weight of one.
    first = rewriter.add("Min", [rewriter.add("Floor", [place]), constant(width - 2, height - 2)])
    weights = rewriter.add("Sub", [place, first])
    stride = rewriter.constant(np.array([[1], [width]], np.float32))
    index = rewriter.add("Cast", [rewriter.add("MatMul", [first, stride])], to=ir.DataType.INT32)
    index.dtype = ir.DataType.INT32
    index = rewriter.add("Squeeze", [index, rewriter.constant(np.array([1]))])
    if pictures > 1:
        begins = np.repeat(np.arange(count) * height * width, total // count).astype(np.int32)
        index = rewriter.add("Add", [index, rewriter.constant(begins)])

    def neighbour(offset: int) -> ir.Value:
        there = rewriter.add("Add", [index, rewriter.constant(np.array(offset, np.int32))]) if offset else index
        return rewriter.add("Gather", [rows, there], axis=0)

    def between(one: ir.Value, other: ir.Value, axis: int) -> ir.Value:
        weight = rewriter.add("Gather", [weights, rewriter.constant(np.array([axis]))], axis=1)
        change = rewriter.add("Mul", [rewriter.add("Sub", [other, one]), weight])
        return rewriter.add("Add", [one, change])

    above, below = (between(neighbour(row), neighbour(row + 1), 0) for row in (0, width))
    bent = reshaped(rewriter, between(above, below, 1), (count, *places[1:3], channels))
    rewriter.replace(sample.outputs[0], rewriter.add("Transpose", [bent], perm=list(TO_FIRST)))
    return True


def _only_picture(picture: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """The one picture [1, C, H, W] that `picture` repeats along its first axis, else `picture` itself."""
    value = picture
    while (producer := value.producer()) is not None and producer.op_type in _SPREADING:
        found = static_shape(value)
        if found is None or found[-3:] != shape[1:] or producer.inputs[0] is None:
            return picture
        value = producer.inputs[0]
    return value if static_shape(value) == (1, *shape[1:]) else picture
