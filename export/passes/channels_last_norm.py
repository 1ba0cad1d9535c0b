"""Pass `channels_last_norm`: a root mean square over channels, and the SiLU behind it, work on the last axis.

A normalisation over the last axis is one kernel instead of six. Convolutions stay channels-first: ONNX Runtime's
blocked convolutions take and give channels-last tensors at no cost beyond the reordering that they do anyway.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..rewriter import Rewriter, only_reader, remove_unused, scalar, transposed


class _Norm(NamedTuple):
    """`source / sqrt(mean over axis 1 of source^2 + epsilon) * gain`."""

    source: ir.Value
    epsilon: float
    gain: np.ndarray | None
    output: ir.Value


def channels_last_norm(model: ir.Model) -> int:
    """Root mean square normalisations over axis 1, and a SiLU behind them, on the last axis; returns how many."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "ReduceMean" and (norm := _match_norm(node)) is not None:
            _rewrite_norm(model.graph, norm)
            count += 1
    remove_unused(model)
    return count


def _match_norm(reduction: ir.Node) -> _Norm | None:
    square, mean = reduction.inputs[0], reduction.outputs[0]
    axes = reduction.inputs[1] if len(reduction.inputs) > 1 else None
    if square is None or square.producer() is None or scalar(axes) != 1.0:
        return None
    if reduction.attributes.get_int("keepdims", 1) != 1:
        return None
    source = _squared(square.producer())
    if source is None or source.shape is None or len(source.shape) < 4 or not isinstance(source.shape[1], int):
        return None
    shifted = only_reader(mean, "Add")
    epsilon = None if shifted is None else scalar(next(v for v in shifted.inputs if v is not mean))
    root = None if shifted is None else only_reader(shifted.outputs[0], "Sqrt")
    inverse = None if root is None else only_reader(root.outputs[0], "Reciprocal")
    product = None if inverse is None else only_reader(inverse.outputs[0], "Mul")
    if epsilon is None or inverse is None or product is None:
        return None
    gain = None
    other = next((v for v in product.inputs if v is not inverse.outputs[0]), None)
    if other is not source:
        # The gain is multiplied in before the activations are.
        if other is None or other.const_value is None:
            return None
        gain = other.const_value.numpy()
        if gain.size != source.shape[1] or gain.ndim != len(source.shape) or gain.shape[1] != gain.size:
            return None
        factor = product.outputs[0]
        scaled = only_reader(factor, "Mul")
        if scaled is None or source not in scaled.inputs:
            return None
        product = scaled
    return _Norm(source, epsilon, gain, product.outputs[0])


def _squared(node: ir.Node | None) -> ir.Value | None:
    if node is None:
        return None
    if node.op_type == "Pow" and scalar(node.inputs[1]) == 2.0:
        return node.inputs[0]
    if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    return None


def _rewrite_norm(graph: ir.Graph, norm: _Norm) -> None:
    last = norm.output.producer()
    assert last is not None
    assert norm.source.shape is not None
    silu = _silu_of(norm.output)
    replaced = norm.output if silu is None else silu.outputs[0]
    # A node that is read later may stand between, so everything is made where the replaced value was.
    rewriter = Rewriter(graph, last if silu is None else silu)
    rank, channels = len(norm.source.shape), norm.source.shape[1]
    to_last = (0, *range(2, rank), 1)
    to_first = (0, rank - 1, *range(1, rank - 1))
    gain = np.ones(channels, np.float32) if norm.gain is None else norm.gain.reshape(-1)  # type: ignore[arg-type]
    moved = transposed(rewriter, norm.source, to_last)
    result = rewriter.add("RMSNormalization", [moved, rewriter.constant(gain)], axis=-1, epsilon=norm.epsilon)
    if silu is not None:
        result = rewriter.add("Mul", [result, rewriter.add("Sigmoid", [result])])
    result.shape = moved.shape
    rewriter.replace(replaced, rewriter.add("Transpose", [result], perm=list(to_first)))


def _silu_of(value: ir.Value) -> ir.Node | None:
    """The product of `value` and its sigmoid, if nothing else reads either."""
    readers = value.consumers()
    sigmoid = next((reader for reader in readers if reader.op_type == "Sigmoid"), None)
    if sigmoid is None or len(value.uses()) != 2 or value.is_graph_output():
        return None
    product = only_reader(sigmoid.outputs[0], "Mul")
    return product if product is not None and value in product.inputs else None
