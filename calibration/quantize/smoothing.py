"""Smoothing: the difficulty of a dominated activation moves into the weights that read it.

`x W = (x / s) (s W)` with s per input channel (Xiao et al., "SmoothQuant", arXiv 2211.10438). The division is folded
into the gain of the norm that made x where there is one, else it is a product of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from rap_edge.export.rewriter import Rewriter, constant, static_shape

from ..observe.layers import Layer, find_nodes
from ..observe.ranges import Extent

STRENGTH = 0.5
_RANGE = 64.0
_NORMS = frozenset(("RMSNormalization", "LayerNormalization"))


@dataclass(frozen=True)
class Smoothed:
    """What became of an activation.

    Attributes:
        name: of the value that the layers read now.
        extent: what it spans.
        folded: whether the division went into a norm's gain.
    """

    name: str
    extent: Extent
    folded: bool


def smooth(model: ir.Model, layers: Sequence[Layer], channels: NDArray[np.float32], extent: Extent) -> Smoothed:
    """Smooth the activation that all of `layers` read, in place.

    Args:
        model: before Q/DQ.
        layers: every one of them reads the same activation.
        channels: largest magnitude per input channel, float32 [channels].
        extent: the smallest and the largest value of all channels.
    """
    nodes = list(find_nodes(model, (layer.node for layer in layers)).values())
    first, source = layers[0], nodes[0].inputs[0]
    assert source is not None  # a layer has an input
    weights = np.max([_channel_maxima(node, layer) for node, layer in zip(nodes, layers, strict=True)], axis=0)
    factors = smoothing_factors(channels, weights)
    for node, layer in zip(nodes, layers, strict=True):
        value = node.inputs[1]
        assert value is not None
        assert value.const_value is not None
        array = value.const_value.numpy()
        shape = [1] * array.ndim
        shape[layer.input_axis] = -1
        scaled = (array * factors.reshape(shape)).astype(array.dtype)
        node.replace_input_with(1, constant(model.graph, f"{value.name}_smoothed_{layer.node}", scaled))
    # Which channel the smallest value is in is not known: it may be the one that grows most.
    most = 1.0 / float(factors.min())
    spanned = Extent(most * extent.low, most * extent.high).within(float((channels / factors).max()))
    producer = source.producer()
    if producer is not None and _can_fold(producer, source, nodes):
        for index in range(1, len(producer.inputs)):
            gain = producer.inputs[index]
            if gain is not None and gain.const_value is not None:
                array = gain.const_value.numpy()
                folded = (np.broadcast_to(array, factors.shape) / factors).astype(array.dtype)
                producer.replace_input_with(
                    index, constant(model.graph, f"{gain.name}_{producer.name}_smoothed", folded)
                )
        return Smoothed(str(source.name), spanned, folded=True)
    rank = len(static_shape(source) or ()) or 4
    shape = [1, -1] + [1] * (rank - 2) if first.op == "Conv" else [-1]
    assert source.dtype is not None
    inverse = (1.0 / factors).reshape(shape).astype(source.dtype.numpy())
    rewriter = Rewriter(model.graph, nodes[0])
    result = rewriter.add("Mul", [source, rewriter.constant(inverse)])
    result.name, result.shape = f"{source.name}_smoothed", source.shape
    for node in nodes:
        node.replace_input_with(0, result)
    return Smoothed(str(result.name), spanned, folded=False)


def smoothing_factors(activations: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each channel is divided by, float32 [channels]; 1 for channels that are always 0."""
    factors = np.ones_like(activations, np.float32)
    there = (activations > 0) & (weights > 0)
    factors[there] = activations[there] ** STRENGTH / weights[there] ** (1.0 - STRENGTH)
    factors /= np.exp(np.log(factors[there]).mean()) if there.any() else 1.0
    return np.where(there, np.clip(factors, 1.0 / _RANGE, _RANGE), 1.0).astype(np.float32)


def _channel_maxima(node: ir.Node, layer: Layer) -> NDArray[np.float32]:
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    array = np.abs(value.const_value.numpy().astype(np.float32))
    maxima: NDArray[np.float32] = array.max(axis=tuple(a for a in range(array.ndim) if a != layer.input_axis))
    return maxima


def _can_fold(producer: ir.Node, value: ir.Value, readers: Sequence[ir.Node]) -> bool:
    constant_gain = len(producer.inputs) > 1 and all(
        item is None or item.const_value is not None for item in producer.inputs[1:]
    )
    only = not value.is_graph_output() and {use.node for use in value.uses()} <= set(readers)
    return producer.op_type in _NORMS and constant_gain and only
