"""Pass `attention_norm`: a norm of queries or keys reads its activations twice and writes no float32 copy of them.

TensorRT runs such a norm as two kernels, because what moves the heads for the attention goes into the second one. The
first hands the activations over in float32, twice the bytes, as both begin with the same sum and cast. Here the second
adds the bias itself, and one number per token is all that is handed over.

The attention's scale goes into the gain of its queries. TensorRT multiplies queries and keys by the scale's root, and
copies the attention's result where it does.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...rewriter import Rewriter, rewrite_each, static_shape

# Of a multiple of their input they give the same multiple of their output.
_MOVEMENT = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Concat"))
_QUERY, _KEY = 0, 1

Reader = tuple[ir.Node, int]
"""An attention, and the input that it reads a value as."""


def attention_norm(model: ir.Model) -> int:
    """Rewrite every `RMSNormalization` of a biased sum that only attentions read, in place; returns how many."""
    return rewrite_each(model, "RMSNormalization", _rewrite)


def _rewrite(graph: ir.Graph, norm: ir.Node) -> bool:
    source, gain = norm.inputs[0], norm.inputs[1]
    biased = source.producer() if source is not None else None
    readers = _attentions_behind(norm.outputs[0])
    if (
        biased is None
        or biased.op_type != "Add"
        or not any(value is not None and value.const_value is not None for value in biased.inputs)
        or gain is None
        or gain.const_value is None
        or norm.attributes.get_int("axis", -1) not in (-1, len(norm.outputs[0].shape or ()) - 1)
        or not readers
    ):
        return False
    factors = (gain.const_value.numpy() * _take_scale(readers)).astype(np.float32)
    rewriter = Rewriter(graph, norm)
    # As a power, which ONNX Runtime recognises: it makes one node of the norm again.
    square = rewriter.add("Pow", [source, rewriter.constant(np.array(2.0, np.float32))])
    mean = rewriter.add("ReduceMean", [square, rewriter.constant(np.array([-1], np.int64))], keepdims=1)
    epsilon = rewriter.constant(np.array(norm.attributes.get_float("epsilon", 1e-5), np.float32))
    root = rewriter.add("Sqrt", [rewriter.add("Add", [mean, epsilon])])
    scaled = rewriter.add("Div", [rewriter.add("Add", list(biased.inputs)), root])
    rewriter.replace(norm.outputs[0], rewriter.add("Mul", [scaled, rewriter.constant(factors)]))
    return True


def _attentions_behind(value: ir.Value) -> list[Reader]:
    """The attentions that read a value, moved and rotated or as it is; none if anything else reads it."""
    found: list[Reader] = []
    pending, derived = [value], {value}
    while pending:
        current = pending.pop()
        if current.is_graph_output():
            return []
        for use in current.uses():
            node = use.node
            if node.op_type in ("Attention", "HybridAttention") and use.idx in (_QUERY, _KEY):
                found.append((node, use.idx))
            elif node.op_type in _MOVEMENT or _rotates(node):
                pending += [output for output in node.outputs if output not in derived]
                derived.update(node.outputs)
            else:
                return []
    return found


def _rotates(node: ir.Node) -> bool:
    """Whether a node may be part of a rotation by constant angles."""
    constants = [value is not None and value.const_value is not None for value in node.inputs]
    if node.op_type == "RotaryEmbedding":
        return all(constants[1:])
    return any(constants) if node.op_type == "Mul" else node.op_type in ("Add", "Sub") and not any(constants)


def _take_scale(readers: list[Reader]) -> float:
    """The factor that attentions put on these queries, which is theirs no more; 1 for keys and where they differ."""
    if any(index != _QUERY or node.op_type != "Attention" for node, index in readers):
        return 1.0
    scales = {_scale(node) for node, _ in readers}
    if len(scales) != 1 or 0.0 in scales:
        return 1.0
    for node, _ in readers:
        node.attributes["scale"] = ir.AttrFloat32("scale", 1.0)
    return scales.pop()


def _scale(attention: ir.Node) -> float:
    """What an attention multiplies its scores by; 0 if its head width is not known."""
    shape = static_shape(attention.inputs[_QUERY])
    if shape is None:
        return 0.0
    width = shape[-1] // (attention.attributes.get_int("q_num_heads", 1) if len(shape) == 3 else 1)
    return attention.attributes.get_float("scale", 1.0 / math.sqrt(width))
