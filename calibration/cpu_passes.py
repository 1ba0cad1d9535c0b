"""Changes that let ONNX Runtime's 8-bit CPU kernels take a layer; each keeps what the graph computes.

`absorb_bias` runs before Q/DQ are placed, the other two after.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rap_edge.export.rewriting import TO_LAST, Rewriter, constant, only_reader, remove_unused, static_shape

_MOVEMENT = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"))


def absorb_bias(model: ir.Model) -> int:
    """Give a convolution the bias that is added behind the transposition of its output; returns how many.

    Pixels can then be moved while they have 8 bits.
    """
    count = 0
    for conv in list(model.graph):
        if conv.op_type != "Conv" or (len(conv.inputs) > 2 and conv.inputs[2] is not None):
            continue
        move = only_reader(conv.outputs[0], "Transpose")
        if move is None or tuple(move.attributes.get_ints("perm", [])) != TO_LAST:
            continue
        add = only_reader(move.outputs[0], "Add")
        bias = (
            None if add is None else next((v for v in add.inputs if v is not None and v.const_value is not None), None)
        )
        channels = static_shape(conv.inputs[1])
        if add is None or bias is None or channels is None or static_shape(bias) != channels[:1]:
            continue
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias)
        ir.convenience.replace_all_uses_with(add.outputs[0], move.outputs[0], replace_graph_outputs=True)
        model.graph.remove(add, safe=True)
        count += 1
    return count


def keep_bias_apart(model: ir.Model) -> int:
    """Give the bias behind a quantised matrix product the product's rank; returns how many.

    ONNX Runtime would merge a bias of rank 1 and the product into a Gemm in fp32, whose weights it restores in every
    run.
    """
    made: dict[tuple[ir.Value, int], ir.Value] = {}
    count = 0
    for node in model.graph:
        add = only_reader(node.outputs[0], "Add") if node.op_type == "MatMul" else None
        weight = node.inputs[1].producer() if node.op_type == "MatMul" and node.inputs[1] is not None else None
        if add is None or weight is None or weight.op_type != "DequantizeLinear":
            continue
        rank = len(static_shape(node.outputs[0]) or ())
        for index, bias in enumerate(add.inputs):
            if bias is not None and bias.const_value is not None and rank > 2 and len(static_shape(bias) or ()) == 1:
                if (bias, rank) not in made:
                    array = bias.const_value.numpy().reshape((1,) * (rank - 1) + (-1,))
                    made[bias, rank] = constant(model.graph, f"{bias.name}_rank_{rank}", array)
                add.replace_input_with(index, made[bias, rank])
                count += 1
    remove_unused(model)
    return count


def pixels_from_quantized(model: ir.Model) -> int:
    """Take uint8 pixels straight from the last convolution's quantised output; returns 1 or 0.

    Quantising with scale 1 and zero point 0 is the rounding and clipping that stands at the graph's end. What else
    reads the unrounded pixels (their mean magnitude) reads the quantised ones.
    """
    for cast in list(model.graph):
        if (
            cast.op_type != "Cast"
            or not cast.outputs[0].is_graph_output()
            or cast.outputs[0].dtype != ir.DataType.UINT8
        ):
            continue
        chain, node = [], cast.inputs[0].producer() if cast.inputs[0] is not None else None
        while node is not None and node.op_type in (*_MOVEMENT, "Round", "Clip"):
            chain.append(node)
            node = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node is None or node.op_type != "DequantizeLinear" or {n.op_type for n in chain} < {"Round", "Clip"}:
            continue
        quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if quantizer is None or quantizer.op_type != "QuantizeLinear":
            continue
        _requantize(model, quantizer, node)
        _move_bytes(model, cast, chain[::-1], quantizer.outputs[0], node.outputs[0])
        remove_unused(model)
        return 1
    return 0


def _requantize(model: ir.Model, quantizer: ir.Node, restore: ir.Node) -> None:
    name = str(quantizer.name)
    scale = constant(model.graph, f"{name}/one", np.array(1.0, np.float32))
    zero = constant(model.graph, f"{name}/black", np.array(0, np.uint8))
    for node in (quantizer, restore):
        node.replace_input_with(1, scale)
        node.replace_input_with(2, zero)


def _move_bytes(model: ir.Model, cast: ir.Node, chain: list[ir.Node], value: ir.Value, restored: ir.Value) -> None:
    rewriter = Rewriter(model.graph, cast)
    # Pixels without a sign are their own magnitude.
    for pixels in (restored, *(node.outputs[0] for node in chain)):
        for node in list(pixels.consumers()):
            if node.op_type == "Abs":
                ir.convenience.replace_all_uses_with(node.outputs[0], pixels)
    for node in chain:
        if node.op_type in _MOVEMENT:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            moved = rewriter.add(node.op_type, [value, *node.inputs[1:]], **attributes)
            moved.shape = node.outputs[0].shape
            value = moved
    pixels = cast.outputs[0]
    rewriter.replace(pixels, value)
    value.name, pixels.name = pixels.name, f"{pixels.name}_rounded"
    model.graph.remove(cast, safe=True)
