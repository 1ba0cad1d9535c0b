"""Pass `conv1d_to_conv2d`: a 1-D convolution becomes a 2-D one over pictures of one row.

ONNX Runtime's CPU kernels are blocked for 2-D convolutions only, and take channels-last tensors at no cost beyond the
reordering that they do anyway: transpositions around a convolution, for a norm over channels, go into them.
"""

from __future__ import annotations

import onnx_ir as ir

from ..rewriter import TO_FIRST, TO_LAST, Rewriter, only_reader, remove_unused, reshaped, static_shape

_SWAP = (0, 2, 1)
_UNARY = frozenset(("Gelu", "Relu", "Sigmoid", "Tanh", "Erf"))


def conv1d_to_conv2d(model: ir.Model) -> int:
    """Rewrite every ungrouped 1-D convolution of static shape with constant weights, in place; returns how many."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "Conv" and node.domain == "" and _is_rewritable(node):
            _rewrite(model.graph, node)
            count += 1
    remove_unused(model)
    return count


def _is_rewritable(conv: ir.Node) -> bool:
    shapes = [static_shape(value) for value in (conv.inputs[0], conv.inputs[1], conv.outputs[0])]
    return (
        all(shape is not None and len(shape) == 3 for shape in shapes)
        and conv.inputs[1] is not None
        and conv.inputs[1].const_value is not None
        and conv.attributes.get_int("group", 1) == 1
        and conv.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )


def _rewrite(graph: ir.Graph, conv: ir.Node) -> None:
    x, weight, output = conv.inputs[0], conv.inputs[1], conv.outputs[0]
    assert x is not None
    assert weight is not None
    assert weight.const_value is not None
    rewriter = Rewriter(graph, conv)
    batch, channels, time = static_shape(x) or ()
    last = _channels_last(rewriter, x)
    if last is None:
        row = reshaped(rewriter, x, (batch, channels, 1, time))
    else:
        row = rewriter.add("Transpose", [reshaped(rewriter, last, (batch, 1, time, channels))], perm=list(TO_FIRST))
        row.shape = ir.Shape((batch, channels, 1, time))
    kernel = rewriter.constant(weight.const_value.numpy()[:, :, None])
    begin, end = conv.attributes.get_ints("pads", (0, 0))
    result = rewriter.add(
        "Conv",
        [row, kernel, *conv.inputs[2:]],
        kernel_shape=[1, kernel.shape[3]],  # type: ignore[index]
        strides=[1, *conv.attributes.get_ints("strides", (1,))],
        dilations=[1, *conv.attributes.get_ints("dilations", (1,))],
        pads=[0, begin, 0, end],
    )
    batch, channels, time = static_shape(output) or ()
    result.shape = ir.Shape((batch, channels, 1, time))
    after = only_reader(output, "Transpose")
    if after is None or tuple(after.attributes.get_ints("perm", ())) != _SWAP:
        rewriter.replace(output, reshaped(rewriter, result, (batch, channels, time)))
        return
    moved = rewriter.add("Transpose", [result], perm=list(TO_LAST))
    moved.shape = ir.Shape((batch, 1, time, channels))
    rewriter.replace(after.outputs[0], reshaped(rewriter, moved, (batch, time, channels)))


def _channels_last(rewriter: Rewriter, x: ir.Value) -> ir.Value | None:
    """`x` as [B, T, C] if it was transposed from there, with the activation that came after."""
    node = x.producer()
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Transpose" and tuple(node.attributes.get_ints("perm", ())) == _SWAP:
        return node.inputs[0]
    if node.op_type not in _UNARY or len(x.uses()) != 1 or x.is_graph_output():
        return None
    before = _channels_last(rewriter, node.inputs[0])
    if before is None:
        return None
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    activation = rewriter.add(node.op_type, [before], **attributes)
    activation.shape = before.shape
    return activation
