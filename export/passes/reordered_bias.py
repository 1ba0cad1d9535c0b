"""Pass `reordered_bias`: a convolution's bias goes behind its reordering to channels last where that is moved on.

ONNX Runtime would else merge the reordering, which the convolution does on its way out, into the movement, and move
single floats instead of runs of memory.
"""

from __future__ import annotations

import onnx_ir as ir

from ..rewriter import TO_LAST, Rewriter, only_reader, rewrite_each

_FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16))


def reordered_bias(model: ir.Model) -> int:
    """Take the bias out of every convolution whose pixels are moved next, in place; returns how many."""
    return rewrite_each(model, "Conv", _rewrite)


def _rewrite(graph: ir.Graph, conv: ir.Node) -> bool:
    bias = conv.inputs[2] if len(conv.inputs) == 3 else None
    reordering = only_reader(conv.outputs[0], "Transpose")
    if bias is None or reordering is None or tuple(reordering.attributes.get_ints("perm", ())) != TO_LAST:
        return False
    moved = reordering.outputs[0]
    shuffle = only_reader(moved, "Reshape")
    if moved.dtype not in _FLOATS or shuffle is None or only_reader(shuffle.outputs[0], "Transpose") is None:
        return False
    conv.replace_input_with(2, None)
    rewriter = Rewriter(graph, shuffle)
    shifted = rewriter.add("Add", [moved, bias])
    shifted.shape = moved.shape
    shuffle.replace_input_with(0, shifted)
    return True
