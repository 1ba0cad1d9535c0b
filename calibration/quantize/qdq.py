"""Explicit Q/DQ: per-tensor activations and symmetric, per-channel weights, around chosen layers.

A layer reads `DequantizeLinear(QuantizeLinear(x))` and a weight that is stored in 8 bits. Biases stay as they are:
TensorRT's parser refuses them as int32 with Q/DQ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rap_edge.export.rewriter import constant, remove_unused

from ..observe.layers import Layer, find_nodes
from ..observe.ranges import Extent
from ..targets import Target

_TINY = 1e-12
_DTYPES = {"int8": np.dtype(np.int8), "uint8": np.dtype(np.uint8), "float8e4m3": np.dtype(ml_dtypes.float8_e4m3fn)}


def quantize(model: ir.Model, layers: Iterable[Layer], extents: Mapping[str, Extent], target: Target) -> int:
    """Put Q/DQ around `layers`, in place.

    Args:
        model: fp32 or fp16.
        layers: of this model.
        extents: what the quantised numbers span, by the name of the activation; a type with its zero at 0 spans the
            larger side twice.
        target: decides the numbers.

    Returns:
        How many layers were quantised.
    """
    chosen = list(layers)
    nodes = find_nodes(model, (layer.node for layer in chosen))
    pairs = _Pairs(model.graph, extents, target)
    for layer in chosen:
        node = nodes[layer.node]
        node.replace_input_with(0, pairs.activation(node.inputs[0], node))
        node.replace_input_with(1, pairs.weight(layer, node))
        if layer.op == "Conv" and target.quantize_outputs:
            pairs.output(node)
    remove_unused(model)
    return len(chosen)


def quantize_weight(
    weight: NDArray[np.floating], axis: int, dtype: str, limit: float
) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    """Symmetric 8-bit numbers of `weight` and a scale per index of `axis`, float32 [channels].

    `limit` is the largest magnitude that a stored number may have.
    """
    values = np.asarray(weight, np.float32)
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others), _TINY).astype(np.float32) / np.float32(limit)
    shape = [1] * values.ndim
    shape[axis] = -1
    scaled = np.clip(values / scale.reshape(shape), -limit, limit)
    if dtype == "int8":
        scaled = np.rint(scaled)
    return scaled.astype(_DTYPES[dtype]), scale


def numbers_of(extent: Extent, target: Target) -> tuple[float, int]:
    """The step between two quantised activations that span `extent`, and which of them is zero."""
    if target.activation_dtype != "uint8":
        return extent.magnitude / target.activation_limit, 0
    last, smaller = round(target.activation_limit), min(-extent.low, extent.high)
    # Zero is a whole number, and neither end is cut: the smaller side is rounded up.
    few = math.ceil(last * smaller / max(extent.high - extent.low, _TINY))
    return extent.magnitude / (last - few), few if -extent.low <= extent.high else last - few


class _Pairs:
    """Adds Q/DQ pairs, one per value and scale."""

    def __init__(self, graph: ir.Graph, extents: Mapping[str, Extent], target: Target) -> None:
        self._graph, self._extents, self._target = graph, extents, target
        self._dtype, self._weight_dtype = _DTYPES[target.activation_dtype], _DTYPES[target.dtype]
        self._made: dict[ir.Value, ir.Value] = {}

    def activation(self, value: ir.Value | None, before: ir.Node) -> ir.Value:
        assert value is not None  # a layer has an input
        if value not in self._made:
            self._made[value] = self._pair(value, before, after=False)
        return self._made[value]

    def output(self, node: ir.Node) -> None:
        """Quantise what the node computes, for every reader."""
        value = node.outputs[0]
        uses = [(use.node, use.idx) for use in value.uses()]
        result = self._pair(value, node, after=True)
        # A layer right behind this one reads what is quantised already.
        self._made[result] = result
        for reader, index in uses:
            reader.replace_input_with(index, result)
        if value.is_graph_output():
            for index, output in enumerate(self._graph.outputs):
                if output is value:
                    result.name, value.name = value.name, f"{value.name}_raw"
                    self._graph.outputs[index] = result

    def _pair(self, value: ir.Value, node: ir.Node, *, after: bool) -> ir.Value:
        # Types were inferred and every value has a name.
        assert value.dtype is not None
        assert value.name is not None
        floats = value.dtype.numpy()
        step, zero_point = numbers_of(self._extents[value.name], self._target)
        scale = constant(self._graph, f"{value.name}_scale", np.array(max(step, np.finfo(floats).tiny), floats))
        zero = constant(self._graph, f"{value.name}_zero", np.array(zero_point, self._dtype))
        quantized = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}/QuantizeLinear")
        restored = ir.node(
            "DequantizeLinear", [quantized.outputs[0], scale, zero], name=f"{value.name}/DequantizeLinear"
        )
        quantized.outputs[0].name = f"{value.name}_quantized"
        quantized.outputs[0].dtype = ir.DataType.from_numpy(self._dtype)
        restored.outputs[0].name = f"{value.name}_restored"
        restored.outputs[0].dtype = value.dtype
        for made in (quantized, restored):
            made.outputs[0].shape = value.shape
        if after:
            self._graph.insert_after(node, [quantized, restored])
        else:
            self._graph.insert_before(node, [quantized, restored])
        return restored.outputs[0]

    def weight(self, layer: Layer, node: ir.Node) -> ir.Value:
        value = node.inputs[1]
        assert value is not None
        assert value.const_value is not None
        assert value.dtype is not None
        if value not in self._made:
            array, scale = quantize_weight(
                value.const_value.numpy(), layer.axis, self._target.dtype, self._target.weight_limit
            )
            floats = value.dtype.numpy()
            name = str(value.name)
            stored = constant(self._graph, f"{name}_quantized", array)
            steps = np.maximum(scale, np.finfo(floats).tiny).astype(floats)
            scales = constant(self._graph, f"{name}_scale", steps)
            zeros = constant(self._graph, f"{name}_zero", np.zeros(scale.shape, self._weight_dtype))
            restore = ir.node(
                "DequantizeLinear",
                [stored, scales, zeros],
                attributes={"axis": layer.axis},
                name=f"{name}/DequantizeLinear",
            )
            restore.outputs[0].name = f"{name}_restored"
            restore.outputs[0].dtype, restore.outputs[0].shape = value.dtype, value.shape
            self._graph.insert_before(node, restore)
            self._made[value] = restore.outputs[0]
        return self._made[value]
