"""Pass `channels_last_shuffle`: a pixel shuffle behind a convolution works on the last axis.

With the convolution's channels in the order (row, column, channel) it moves whole runs of memory, not single floats.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..rewriter import TO_FIRST, TO_LAST, Rewriter, only_reader, rewrite_each, static_shape, transposed


def channels_last_shuffle(model: ir.Model) -> int:
    """Pixel shuffles directly behind a convolution, on the last axis; returns how many."""
    return rewrite_each(model, "DepthToSpace", _rewrite_shuffle)


def _rewrite_shuffle(graph: ir.Graph, shuffle: ir.Node) -> bool:
    source, output = shuffle.inputs[0], shuffle.outputs[0]
    shape = static_shape(source)
    conv = source.producer() if source is not None else None
    if (
        shape is None
        or len(shape) != 4
        or conv is None
        or conv.op_type != "Conv"
        or conv.attributes.get_int("group", 1) != 1
        or only_reader(conv.outputs[0], "DepthToSpace") is None
        or shuffle.attributes.get_string("mode", "DCR") != "CRD"
        or any(value is None or value.const_value is None for value in conv.inputs[1:])
    ):
        return False
    batch, folded, height, width = shape
    block = shuffle.attributes.get_int("blocksize", 1)
    channels = folded // block**2
    # From channel-major to (row, column, channel).
    order = np.arange(folded).reshape(channels, block, block).transpose(1, 2, 0).reshape(-1)
    rewriter = Rewriter(graph, conv)
    for index, value in enumerate(conv.inputs[1:], start=1):
        array = np.ascontiguousarray(value.const_value.numpy()[order])  # type: ignore[union-attr]
        conv.replace_input_with(index, rewriter.constant(array))
    rewriter = Rewriter(graph, shuffle)
    last = transposed(rewriter, conv.outputs[0], TO_LAST)
    rows = rewriter.add(
        "Reshape", [last, rewriter.constant(np.array([batch, height, width, block, block * channels], np.int64))]
    )
    rows.shape = ir.Shape([batch, height, width, block, block * channels])
    runs = rewriter.add("Transpose", [rows], perm=[0, 1, 3, 2, 4])
    runs.shape = ir.Shape([batch, height, block, width, block * channels])
    pixels = rewriter.add(
        "Reshape", [runs, rewriter.constant(np.array([batch, height * block, width * block, channels], np.int64))]
    )
    pixels.shape = ir.Shape([batch, height * block, width * block, channels])
    rewriter.replace(output, rewriter.add("Transpose", [pixels], perm=list(TO_FIRST)))
    return True
