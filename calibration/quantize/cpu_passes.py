"""Changes that let ONNX Runtime's 8-bit CPU kernels take a layer; each keeps what the graph computes.

`absorb_bias` runs before Q/DQ are placed, the others after.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rap_edge.export.rewriter import TO_LAST, Rewriter, constant, only_reader, remove_unused, scalar, static_shape

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


def join_bias(model: ir.Model) -> int:
    """Give the bias behind a quantised matrix product to the 8-bit kernel; returns how many.

    A product of rows becomes a Gemm whose bias is in the units of its 32-bit sums. Elsewhere the negated bias is
    subtracted: ONNX Runtime would merge an addition and the product into a Gemm in fp32, whose weights it restores in
    every run.
    """
    negated: dict[ir.Value, ir.Value] = {}
    count = 0
    for node in list(model.graph):
        add = only_reader(node.outputs[0], "Add") if node.op_type == "MatMul" else None
        scales = [scale for value in node.inputs[:2] if (scale := _scale(value)) is not None]
        if add is None or len(scales) < 2:
            continue
        bias = next((value for value in add.inputs if value is not None and value.const_value is not None), None)
        if bias is None or bias.const_value is None:
            continue
        rewriter = Rewriter(model.graph, add)
        if len(static_shape(node.outputs[0]) or ()) == 2 and scales[0].size == 1:
            unit = (scales[0].reshape(()) * scales[1].reshape(-1)).astype(np.float32)
            sums = np.rint(bias.const_value.numpy().reshape(-1) / unit.astype(np.float64))
            stored = rewriter.constant(np.clip(sums, -(2**30), 2**30).astype(np.int32))
            term = rewriter.add(
                "DequantizeLinear", [stored, rewriter.constant(np.broadcast_to(unit, sums.shape).copy())], axis=0
            )
            term.dtype = ir.DataType.FLOAT
            result = rewriter.add("Gemm", [*node.inputs, term])
        else:
            if bias not in negated:
                negated[bias] = constant(model.graph, f"{bias.name}_negated", -bias.const_value.numpy())
            result = rewriter.add("Sub", [node.outputs[0], negated[bias]])
        rewriter.replace(add.outputs[0], result)
        count += 1
    remove_unused(model)
    return count


def _scale(value: ir.Value | None) -> NDArray[np.float32] | None:
    """What a `DequantizeLinear` multiplies with to give `value`, if that is what makes it."""
    restore = value.producer() if value is not None else None
    if restore is None or restore.op_type != "DequantizeLinear":
        return None
    scale = restore.inputs[1]
    return None if scale is None or scale.const_value is None else scale.const_value.numpy()


def silu_in_bytes(model: ir.Model) -> int:
    """Let a SiLU between two quantised convolutions work on bytes; returns how many.

    Its sigmoid, which lies in 0..1, gets 256 levels; ONNX Runtime has 8-bit kernels for that and for the product.
    """
    count = 0
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Sigmoid" else None
        product = None if source is None else only_reader(node.outputs[0], "Mul")
        if source is None or product is None or source not in product.inputs:
            continue
        restore, quantizer = source.producer(), only_reader(product.outputs[0], "QuantizeLinear")
        if restore is None or restore.op_type != "DequantizeLinear" or quantizer is None:
            continue
        rewriter = Rewriter(model.graph, product)
        scale, zero = rewriter.constant(np.array(1 / 255, np.float32)), rewriter.constant(np.array(0, np.uint8))
        levels = rewriter.add("QuantizeLinear", [node.outputs[0], scale, zero])
        levels.dtype = ir.DataType.UINT8
        restored = rewriter.add("DequantizeLinear", [levels, scale, zero])
        restored.dtype = ir.DataType.FLOAT
        product.replace_input_with(product.inputs.index(node.outputs[0]), restored)
        count += 1
    return count


def pixels_from_quantized(model: ir.Model) -> int:
    """Take uint8 pixels straight from the last convolution's quantised output; returns 1 or 0.

    The rounding to pixels at the graph's end, `QuantizeLinear` with scale 1 and zero point 0, becomes its own.
    What else reads the unrounded pixels (their mean magnitude) reads the quantised ones.
    """
    for rounding in list(model.graph):
        if not _rounds_to_pixels(rounding):
            continue
        chain, node = [], rounding.inputs[0].producer() if rounding.inputs[0] is not None else None
        while node is not None and node.op_type in _MOVEMENT:
            chain.append(node)
            node = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node is None or node.op_type != "DequantizeLinear":
            continue
        quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if quantizer is None or quantizer.op_type != "QuantizeLinear":
            continue
        _requantize(model, quantizer, node)
        _move_bytes(model, rounding, chain[::-1], quantizer.outputs[0], node.outputs[0])
        remove_unused(model)
        return 1
    return 0


def _rounds_to_pixels(node: ir.Node) -> bool:
    if node.op_type != "QuantizeLinear" or len(node.inputs) < 3 or node.outputs[0].dtype != ir.DataType.UINT8:
        return False
    return scalar(node.inputs[1]) == 1.0 and scalar(node.inputs[2]) == 0.0


def _requantize(model: ir.Model, quantizer: ir.Node, restore: ir.Node) -> None:
    name = str(quantizer.name)
    scale = constant(model.graph, f"{name}/one", np.array(1.0, np.float32))
    zero = constant(model.graph, f"{name}/black", np.array(0, np.uint8))
    for node in (quantizer, restore):
        node.replace_input_with(1, scale)
        node.replace_input_with(2, zero)


def _move_bytes(model: ir.Model, rounding: ir.Node, chain: list[ir.Node], value: ir.Value, restored: ir.Value) -> None:
    rewriter = Rewriter(model.graph, rounding)
    # Pixels without a sign are their own magnitude.
    for pixels in (restored, *(node.outputs[0] for node in chain)):
        for node in list(pixels.consumers()):
            if node.op_type == "Abs":
                ir.convenience.replace_all_uses_with(node.outputs[0], pixels)
    for node in chain:
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        moved = rewriter.add(node.op_type, [value, *node.inputs[1:]], **attributes)
        moved.shape = node.outputs[0].shape
        value = moved
    rewriter.replace(rounding.outputs[0], value)
