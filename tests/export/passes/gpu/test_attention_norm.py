import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.attention_modules import Rotated, ToAudio
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.attention_layout import attention_layout
from rap_edge.export.passes.gpu.attention_norm import attention_norm
from rap_edge.export.passes.rotary_embedding import rotary_embedding
from rap_edge.export.precision.to_fp16 import to_fp16
from rap_edge.models.norms import RMSNorm32


def scales(model: ir.Model) -> list[float]:
    return [node.attributes.get_float("scale", 0.0) for node in model.graph if node.op_type == "Attention"]


@pytest.mark.parametrize("batch", [1, 2])
def test_norms_of_queries_and_keys_add_their_bias_twice_and_take_the_scale(batch: int) -> None:
    module, x = Rotated(), torch.randn(batch, 6, 36)
    model = lifted(module, x)
    sums = count(model, "Add")
    assert attention_norm(model) == 2
    assert (count(model, "RMSNormalization"), count(model, "ReduceMean"), count(model, "Div")) == (0, 2, 2)
    # A bias and an epsilon for each.
    assert count(model, "Add") == sums + 4
    assert scales(model) == [1.0]
    assert_same(model, module, x)


def test_it_works_where_one_node_rotates_and_heads_were_never_moved() -> None:
    module, x = Rotated(), torch.randn(1, 6, 36)
    model = lifted(module, x)
    rotary_embedding(model)
    attention_layout(model)
    assert attention_norm(model) == 2
    assert scales(model) == [1.0]
    assert_same(model, module, x)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_norm_of_queries_to_audio_takes_the_scale_too(alpha: float) -> None:
    module, x = ToAudio(alpha), torch.randn(1, 6, 36)
    model = lifted(module, x)
    assert attention_norm(model) == 1
    assert scales(model) == [1.0]
    assert_same(model, module, x)


def test_a_scale_that_the_attention_has_is_kept() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(24, 24), RMSNorm32(24, 1e-6)

        def forward(self, x):
            heads = self.norm(self.linear(x)).unflatten(-1, (2, -1)).transpose(1, 2)
            keys = x.unflatten(-1, (2, -1)).transpose(1, 2)
            return F.scaled_dot_product_attention(heads, keys, keys, scale=0.7).transpose(1, 2).flatten(2)

    module, x = Scaled(), torch.randn(1, 6, 24)
    model = lifted(module, x)
    assert attention_norm(model) == 1
    assert scales(model) == [1.0]
    assert_same(model, module, x)


class Shared(nn.Module):
    """A norm that an attention reads, and something else, or as what it must not be scaled."""

    def __init__(self, case: str) -> None:
        super().__init__()
        self.linear, self.norm, self.case = nn.Linear(24, 24), RMSNorm32(24, 1e-6), case

    def forward(self, x):
        normed = self.norm(self.linear(x))
        heads = normed.unflatten(-1, (2, -1)).transpose(1, 2)
        plain = x.unflatten(-1, (2, -1)).transpose(1, 2)
        queries = F.gelu(heads) if self.case == "bent" else heads
        keys, values = (heads if self.case == "keys" else plain), (heads if self.case == "values" else plain)
        result = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        return result + normed if self.case == "sum" else result


@pytest.mark.parametrize(("case", "rewritten"), [("bent", 0), ("values", 0), ("sum", 0), ("keys", 1)])
def test_what_is_read_by_others_or_bent_is_left_alone_and_keys_are_not_scaled(case: str, rewritten: int) -> None:
    module, x = Shared(case), torch.randn(1, 6, 24)
    model = lifted(module, x)
    before = scales(model)
    assert attention_norm(model) == rewritten
    assert scales(model) == before
    assert_same(model, module, x)


def test_the_norm_stays_in_float32_up_to_its_gain_and_the_bias_is_added_in_float16() -> None:
    model = lifted(ToAudio(1.0), torch.randn(1, 6, 36))
    attention_norm(model)
    kept = {island.node for island in to_fp16(model)}
    norm = [node for node in model.graph if node.name in kept]
    assert [node.op_type for node in norm] == ["Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
    source = norm[4].inputs[0].producer()
    assert source.op_type == "Cast"
    assert (source.inputs[0].producer().op_type, source.inputs[0].dtype) == ("Add", ir.DataType.FLOAT16)
