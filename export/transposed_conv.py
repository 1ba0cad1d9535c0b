"""Pass `pixel_shuffle_to_transposed_conv`: a 1x1 convolution and a pixel shuffle become one transposed convolution.

The two compute the same numbers, but ONNX Runtime's transposed convolution writes each pixel once where DepthToSpace
moves the whole enlarged map a second time, on one thread.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph_edit import initializer, inner_value, only_reader


def pixel_shuffle_to_transposed_conv(model: ir.Model) -> int:
    """Rewrite every such pair with constant weights, in place; returns how many."""
    count = 0
    for node in list(model.graph):
        shuffle = _following_shuffle(node)
        if shuffle is not None:
            _rewrite(model.graph, node, shuffle)
            count += 1
    return count


def _following_shuffle(conv: ir.Node) -> ir.Node | None:
    """The DepthToSpace that reads `conv` alone, if the pair can be one transposed convolution."""
    if conv.op_type != "Conv" or conv.domain != "" or conv.attributes.get_int("group", 1) != 1:
        return None
    weight = conv.inputs[1]
    if weight is None or weight.const_value is None or weight.shape is None or list(weight.shape[2:]) != [1, 1]:
        return None
    if any(pad != 0 for pad in conv.attributes.get_ints("pads", ())):
        return None
    if any(stride != 1 for stride in conv.attributes.get_ints("strides", ())):
        return None
    shuffle = only_reader(conv.outputs[0])
    if shuffle is None or shuffle.op_type != "DepthToSpace":
        return None
    return shuffle if shuffle.attributes.get_string("mode", "DCR") == "CRD" else None


def _rewrite(graph: ir.Graph, conv: ir.Node, shuffle: ir.Node) -> None:
    x, weight_value = conv.inputs[0], conv.inputs[1]
    assert weight_value is not None
    assert weight_value.const_value is not None
    weight = weight_value.const_value.numpy()[:, :, 0, 0]
    block = shuffle.attributes["blocksize"].as_int()
    channels = weight.shape[0] // block**2
    # Channel c * block**2 + i * block + j of the convolution is pixel (i, j) of channel c.
    kernel = weight.reshape(channels, block, block, -1).transpose(3, 0, 1, 2)
    output = shuffle.outputs[0]
    base = str(output.name)
    enlarged = ir.node(
        "ConvTranspose",
        [x, initializer(graph, np.ascontiguousarray(kernel), f"{base}_kernel")],
        attributes={"kernel_shape": [block, block], "strides": [block, block]},
        name=f"{conv.name}_transposed",
    )
    made, result = [enlarged], inner_value(enlarged, f"{base}_enlarged", output)
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if bias is not None and bias.const_value is not None and output.shape is not None:
        # Each phase has its own bias, so it is a small picture that is tiled over the map.
        height, width = (int(size) for size in output.shape[2:])  # type: ignore[arg-type]
        tile = bias.const_value.numpy().reshape(1, channels, block, block)
        tiled = np.tile(tile, (1, 1, height // block, width // block))
        add = ir.node("Add", [result, initializer(graph, tiled, f"{base}_bias")], name=f"{conv.name}_bias")
        made.append(add)
        result = inner_value(add, f"{base}_biased", output)
    ir.convenience.replace_nodes_and_values(graph, conv, [conv, shuffle], made, [output], [result])
