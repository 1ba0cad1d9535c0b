"""Pass `channels_last_sum`: a residual is added where the picture already lies channels last.

A residual block's input is channels last for its norm: the sum needs no second copy of it.
"""

from __future__ import annotations

import onnx_ir as ir

from ..rewriter import TO_FIRST, TO_LAST, Rewriter, rewrite_each, static_shape, transposed


def channels_last_sum(model: ir.Model) -> int:
    """Sums of a picture that was laid out channels last and another one, on the last axis; returns how many."""
    return rewrite_each(model, "Add", _rewrite_sum)


def _rewrite_sum(graph: ir.Graph, addition: ir.Node) -> bool:
    output = addition.outputs[0]
    shape = static_shape(output)
    if shape is None or len(shape) != 4 or any(static_shape(value) != shape for value in addition.inputs):
        return False
    sources = [value.producer() if value is not None else None for value in addition.inputs]
    if not any(node is not None and _perm(node) == TO_FIRST for node in sources):
        return False
    rewriter = Rewriter(graph, addition)
    pictures = [transposed(rewriter, value, TO_LAST) for value in addition.inputs if value is not None]
    total = rewriter.add("Add", pictures)
    total.shape = pictures[0].shape
    for reader in list(output.consumers()):
        if _perm(reader) == TO_LAST:
            rewriter.replace(reader.outputs[0], total)
    rewriter.replace(output, rewriter.add("Transpose", [total], perm=list(TO_FIRST)))
    return True


def _perm(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints("perm", ())) if node.op_type == "Transpose" else ()
