"""Floating point operations of a graph, counted from its shapes: 2 per multiply-add of convolutions, matrix products
and attention. Elementwise work is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx

from rap_edge.runtime.bundle.contract import runs_per_chunk
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.spec import ModelSpec

from ..hybrid_attention.operator import DOMAIN, OP_TYPE

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def count_flops(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    """Operations of one run.

    Args:
        model: weights may be absent; only their shapes are read.
        sizes: values of the free dimensions by name.

    Raises:
        ExportError: the shapes of a counted operator cannot be inferred.
    """
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    for value in (*bound.graph.input, *bound.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    shapes = _shapes(onnx.shape_inference.infer_shapes(bound, data_prop=True).graph)
    total = 0
    for node in bound.graph.node:
        if (counter := _COUNTERS.get((node.domain, node.op_type))) is None:
            continue
        try:
            total += counter(node, shapes)
        except KeyError as error:
            raise ExportError(
                f"The FLOPs of node {node.name!r} cannot be counted because {error} has no known shape; report it."
            ) from None
    return total


def chunk_flops(spec: ModelSpec, flops: Mapping[str, int]) -> int:
    """Floating point operations of one chunk: every graph as often as the chunk loop runs it."""
    # A clean carry re-encodes some of the frames that the encoder was counted for.
    encoded = flops["vae_encoder"] * spec.carried_frames // spec.chunk_frames
    once = {**flops, "vae_encoder": encoded}
    return sum(once[name] * count for name, count in runs_per_chunk(spec).items())


def _shapes(graph: onnx.GraphProto) -> Shapes:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _conv(node: onnx.NodeProto, shapes: Shapes) -> int:
    # The weight is [out, in / group, ...]: one product per output element and weight of its filter.
    return 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _conv_transpose(node: onnx.NodeProto, shapes: Shapes) -> int:
    return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    inner = shapes[node.input[0]][0 if _attribute(node, "transA", 0) else 1]
    return 2 * math.prod(shapes[node.output[0]]) * inner


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    # Scores and weighted values: every query element meets every key row once in each.
    query, key = shapes[node.input[0]], shapes[node.input[1]]
    return 4 * math.prod(query) * key[-2]


def _hybrid_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    query, key, full_key = (shapes[node.input[index]] for index in (0, 1, 3))
    return 4 * math.prod(query) * (key[1] // _attribute(node, "frames", 1) + full_key[1])


_COUNTERS: Mapping[tuple[str, str], Callable[[onnx.NodeProto, Shapes], int]] = MappingProxyType(
    {
        ("", "Conv"): _conv,
        ("", "ConvTranspose"): _conv_transpose,
        ("", "MatMul"): _matmul,
        ("", "Gemm"): _gemm,
        ("", "Attention"): _attention,
        (DOMAIN, OP_TYPE): _hybrid_attention,
    }
)
