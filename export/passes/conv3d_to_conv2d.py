"""Pass `conv3d_to_conv2d`: a 3-D convolution becomes a sum of 2-D convolutions over time-shifted frames.

ONNX Runtime's CPU kernels are blocked and vectorised for 2-D convolutions but not for 3-D ones. Time becomes the
batch: `out[t] = sum_j W[:, :, j] * x[stride * t + dilation * j]`, for a free number of frames too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..rewriter import constant as new_constant

_INT64_MAX = np.iinfo(np.int64).max


def conv3d_to_conv2d(model: ir.Model) -> int:
    """Rewrite every 3-D convolution of batch 1 with constant weights, in place; returns how many."""
    count = 0
    for node in list(model.graph):
        if _is_rewritable(node):
            _rewrite(model.graph, node)
            count += 1
    return count


def _is_rewritable(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.domain != "":
        return False
    x, weight = node.inputs[0], node.inputs[1]
    return (
        x is not None
        and weight is not None
        and weight.const_value is not None
        and weight.shape is not None
        and len(weight.shape) == 5
        and x.shape is not None
        and x.shape[0] == 1
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return [int(item) for item in node.attributes.get_ints(name, default)]


def _rewrite(graph: ir.Graph, conv: ir.Node) -> None:
    x, weight_value = conv.inputs[0], conv.inputs[1]
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    output = conv.outputs[0]
    assert x is not None
    assert weight_value is not None
    assert weight_value.const_value is not None
    base = str(output.name)
    weight = weight_value.const_value.numpy()
    kernel = weight.shape[2]
    strides, dilations = _ints(conv, "strides", (1, 1, 1)), _ints(conv, "dilations", (1, 1, 1))
    pads = _ints(conv, "pads", (0,) * 6)
    attributes = {
        "kernel_shape": list(weight.shape[3:]),
        "strides": strides[1:],
        "dilations": dilations[1:],
        "pads": [pads[1], pads[2], pads[4], pads[5]],
        "group": conv.attributes.get_int("group", 1),
    }
    made: list[ir.Node] = []

    def add(op_type: str, inputs: Sequence[ir.Value | None], suffix: str, **attrs: object) -> ir.Value:
        node = ir.node(op_type, inputs, attributes=attrs, name=f"{conv.name}.{suffix}")  # type: ignore[arg-type]
        node.outputs[0].name = f"{base}_{suffix}"
        if output.dtype is not None:
            node.outputs[0].dtype = output.dtype
        made.append(node)
        return node.outputs[0]

    def constant(array: np.ndarray, suffix: str) -> ir.Value:
        return new_constant(graph, f"{base}_{suffix}", array)

    batch_axis = constant(np.array([0], np.int64), "batch_axis")
    frames = add("Transpose", [add("Squeeze", [x, batch_axis], "unbatched")], "frames", perm=[1, 0, 2, 3])
    if pads[0] or pads[3]:
        edges = constant(np.array([pads[0], 0, 0, 0, pads[3], 0, 0, 0], np.int64), "time_pads")
        frames = add("Pad", [frames, edges], "padded")
    total: ir.Value | None = None
    for tap in range(kernel):
        offset, rest = dilations[0] * tap, dilations[0] * (kernel - 1 - tap)
        shifted = frames
        if kernel > 1 or strides[0] > 1:
            start = constant(np.array([offset], np.int64), f"start_{tap}")
            end = constant(np.array([-rest if rest else _INT64_MAX], np.int64), f"end_{tap}")
            step = constant(np.array([strides[0]], np.int64), f"step_{tap}")
            shifted = add("Slice", [frames, start, end, batch_axis, step], f"shifted_{tap}")
        kernel_2d = constant(np.ascontiguousarray(weight[:, :, tap]), f"weight_{tap}")
        inputs = [shifted, kernel_2d, bias if tap == 0 else None]
        partial = add("Conv", inputs if inputs[2] is not None else inputs[:2], f"tap_{tap}", **attributes)
        if output.shape is not None:
            partial.shape = ir.Shape([output.shape[2], output.shape[1], *output.shape[3:]])
        total = partial if total is None else add("Add", [total, partial], f"sum_{tap}")
    assert total is not None
    channels = add("Transpose", [total], "channels", perm=[1, 0, 2, 3])
    result = add("Unsqueeze", [channels, batch_axis], "result")
    result.shape = output.shape
    ir.convenience.replace_nodes_and_values(graph, conv, [conv], made, [output], [result])
    if not weight_value.uses():
        graph.initializers.pop(str(weight_value.name), None)
