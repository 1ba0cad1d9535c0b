"""RAP's hybrid attention as the ONNX operator `rap::HybridAttention`.

The operator is a model-local function: every graph that uses it carries its definition in standard opset 23
operators, so any runtime can run it, while an engine with a fused kernel can claim the node by its name.

Inputs `query`, `key`, `value`, `full_key`, `full_value` are [B, tokens, heads * d] in one float type; attributes are
`num_heads`, `frames` (latent frames k) and `alpha` (weight of the window branch). Output: the shape of `query`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from rap_edge.models.attention import HybridAttention, hybrid_attention

from .operator import DOMAIN, OP_TYPE, VERSION

# 1 - alpha is computed in fp32 and only then cast, as the reference does. The branches are weighted by weighting their
# values, which are far fewer than the video tokens.
_DEFINITION = """
<domain: "rap", opset_import: ["" : 23]>
HybridAttention <num_heads, frames, alpha> (query, key, value, full_key, full_value) => (output)
{
    alpha_32 = Constant <value_float: float = @alpha> ()
    one_32 = Constant <value_float: float = 1.0> ()
    beta_32 = Sub (one_32, alpha_32)
    window_weight = CastLike (alpha_32, query)
    full_weight = CastLike (beta_32, query)
    weighted_value = Mul (window_weight, value)
    weighted_full_value = Mul (full_weight, full_value)
    one = Constant <value_ints: ints = [1]> ()
    k_scalar = Constant <value_int: int = @frames> ()
    k = Reshape (k_scalar, one)
    rows = Concat <axis: int = 0> (k, one, one)
    columns = Concat <axis: int = 0> (one, k, one)
    query_shape = Shape (query)
    query_rows = Mul (query_shape, rows)
    query_split = Div (query_rows, columns)
    key_shape = Shape (key)
    key_rows = Mul (key_shape, rows)
    key_split = Div (key_rows, columns)
    frame_query = Reshape (query, query_split)
    frame_key = Reshape (key, key_split)
    frame_value = Reshape (weighted_value, key_split)
    frame_output = Attention <q_num_heads: int = @num_heads, kv_num_heads: int = @num_heads>
        (frame_query, frame_key, frame_value)
    window = Reshape (frame_output, query_shape)
    full = Attention <q_num_heads: int = @num_heads, kv_num_heads: int = @num_heads>
        (query, full_key, weighted_full_value)
    output = Add (window, full)
}
"""


class SymbolicHybridAttention(nn.Module):
    """Stands in for `HybridAttention` while a graph is captured; a layer with one branch stays plain attention."""

    def __init__(self, alpha: float, num_heads: int) -> None:
        super().__init__()
        self.alpha = alpha
        self.num_heads = num_heads

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, full_key: Tensor, full_value: Tensor, frames: int
    ) -> Tensor:
        """See `rap_edge.models.attention.hybrid_attention`."""
        inputs = (query, key, value, full_key, full_value)
        if self.alpha <= 0.0 or self.alpha >= 1.0:
            return hybrid_attention(*inputs, self.alpha, self.num_heads, frames)
        output: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{OP_TYPE}",
            inputs,
            {"alpha": float(self.alpha), "num_heads": self.num_heads, "frames": frames},
            dtype=query.dtype,
            shape=query.shape,
            version=VERSION,
        )
        return output


@contextmanager
def symbolic_hybrid_attention(module: nn.Module) -> Iterator[None]:
    """Capture every `HybridAttention` below `module` as one node; the module is as before afterwards."""
    replaced: list[tuple[nn.Module, str, HybridAttention]] = []
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, HybridAttention):
                replaced.append((parent, name, child))
    try:
        for parent, name, child in replaced:
            setattr(parent, name, SymbolicHybridAttention(child.alpha, child.num_heads))
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child)


def hybrid_attention_function() -> onnx.FunctionProto:
    """The operator's definition."""
    return onnx.parser.parse_function(_DEFINITION)


def carry_definition(model: ir.Model) -> None:
    """Append the definition to a model that uses the operator, in place.

    It must come last: an optimiser that sees the definition may inline it.
    """
    if any(node.domain == DOMAIN for node in model.graph):
        function = ir.serde.deserialize_function(hybrid_attention_function())
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = VERSION
