"""Pass `pixel_rounding`: rounding, clipping and casting to uint8 become one `QuantizeLinear` of scale 1.

It rounds halves to even and saturates at 0 and 255, which is what the three nodes do; the pixels are moved into place
as bytes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, only_reader, rewrite_each, scalar

_MOVEMENT = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze"))


def pixel_rounding(model: ir.Model) -> int:
    """Rewrite every `Round`, `Clip` to 0..255 and `Cast` to uint8, also with movement between, in place; how many."""
    return rewrite_each(model, "Round", _rewrite)


def _rewrite(graph: ir.Graph, rounding: ir.Node) -> bool:
    clip, source = only_reader(rounding.outputs[0], "Clip"), rounding.inputs[0]
    if clip is None or source is None or [scalar(value) for value in clip.inputs[1:]] != [0.0, 255.0]:
        return False
    moved: list[ir.Node] = []
    value = clip.outputs[0]
    while (readers := value.consumers()) and readers[0].op_type in _MOVEMENT and len(value.uses()) == 1:
        if value.is_graph_output():
            return False
        moved.append(readers[0])
        value = readers[0].outputs[0]
    cast = only_reader(value, "Cast")
    if cast is None or cast.attributes.get_int("to", 0) != ir.DataType.UINT8:
        return False
    rewriter = Rewriter(graph, clip)
    one, zero = rewriter.constant(np.array(1.0, np.float32)), rewriter.constant(np.array(0, np.uint8))
    pixels = rewriter.add("QuantizeLinear", [source, one, zero])
    pixels.dtype, pixels.shape = ir.DataType.UINT8, clip.outputs[0].shape
    ir.convenience.replace_all_uses_with(clip.outputs[0], pixels)
    for node in moved:
        node.outputs[0].dtype = ir.DataType.UINT8
    rewriter.replace(cast.outputs[0], moved[-1].outputs[0] if moved else pixels)
    return True
