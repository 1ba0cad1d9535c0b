"""What a graph claims to be, read from its ONNX file and the manifest: the other side of the truth test.

In: an ONNX graph, its precision and its islands. Out: how many attentions it holds, which nodes may compute in float32,
and which are quantised to what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from rap_edge.runtime.errors import ExportError

from ...hybrid_attention.operator import DOMAIN, OP_TYPE

_PRODUCTS = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose"))
_MOVEMENT = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"))
_QUANTISED = {
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
}


@dataclass(frozen=True)
class Claim:
    """What an engine of a graph has to be.

    Attributes:
        graph: its name, for messages.
        dtype: numpy dtype name that its layers compute in, "float16" or "float32".
        attention: `Attention` operators, those inside functions counted at every call.
        hybrid: `rap::HybridAttention` operators, each of which holds two of those.
        islands: nodes that may compute in float32.
        wide: those of the islands that are matrix products or convolutions.
        quantised: nodes whose operands are dequantised, and from which type.
    """

    graph: str
    dtype: str
    attention: int
    islands: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()
    quantised: Mapping[str, str] = field(default_factory=dict)
    hybrid: int = 0

    def with_plugins(self) -> Claim:
        """What the graph is when its hybrid attentions are plugins."""
        return replace(self, attention=self.attention - 2 * self.hybrid, hybrid=0)

    def to_dict(self) -> dict[str, Any]:
        """The claim as plain JSON types."""
        return asdict(self) | {"islands": sorted(self.islands), "wide": sorted(self.wide)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claim:
        """The claim that `to_dict` gave."""
        return cls(**{**data, "islands": frozenset(data["islands"]), "wide": frozenset(data["wide"])})


def read_claim(name: str, file: Path, dtype: str, islands: Iterable[str]) -> Claim:
    """The claim of the ONNX graph in `file`; weights in other files are not read.

    Raises:
        ExportError: the file is no ONNX model.
    """
    try:
        model = onnx.load(file, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ExportError(f"{str(file)!r} is no readable ONNX graph ({error}); export the bundle again.") from None
    functions = {(function.domain, function.name): function for function in model.functions}
    attention = sum(_attentions(node, functions) for node in model.graph.node)
    hybrid = sum((node.domain, node.op_type) == (DOMAIN, OP_TYPE) for node in model.graph.node)
    kept = frozenset(islands)
    products = frozenset(node.name for node in model.graph.node if node.op_type in _PRODUCTS)
    return Claim(name, dtype, attention, kept, kept & products, _quantised(model.graph), hybrid)


def _attentions(node: onnx.NodeProto, functions: Mapping[tuple[str, str], onnx.FunctionProto]) -> int:
    if function := functions.get((node.domain, node.op_type)):
        return sum(_attentions(inner, functions) for inner in function.node)
    return int(node.op_type == "Attention")


def _quantised(graph: onnx.GraphProto) -> dict[str, str]:
    producers = {output: node for node in graph.node for output in node.output}
    types = {item.name: item.data_type for item in graph.initializer}

    def stored(value: str) -> str | None:
        """The quantised type that `value` was before it was dequantised."""
        node = producers.get(value)
        while node is not None and node.op_type in _MOVEMENT:
            node = producers.get(node.input[0])
        if node is None or node.op_type != "DequantizeLinear":
            return None
        source = producers.get(node.input[0])
        if source is None:
            return _QUANTISED.get(types.get(node.input[0], 0))
        zero = source.input[2] if len(source.input) > 2 else ""
        # QuantizeLinear without a zero point gives uint8.
        return _QUANTISED.get(types.get(zero, onnx.TensorProto.UINT8))

    result = {}
    for node in graph.node:
        if node.op_type in _PRODUCTS:
            operands = {stored(value) for value in node.input[:2]}
            if len(operands) == 1 and (kind := operands.pop()) is not None:
                result[node.name] = kind
    return result
