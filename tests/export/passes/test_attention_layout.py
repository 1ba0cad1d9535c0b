import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.attention_layout import attention_layout
from rap_edge.export.passes.rotary_embedding import rotary_embedding
from rap_edge.models.attention import SelfAttention, rotary_table


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.inner = SelfAttention(12 * heads, heads, 1e-6)

    def forward(self, x):
        return self.inner(x, rotary_table(12, (2, 1, 3), x.device))


@pytest.mark.parametrize("batch", [1, 2])
def test_attention_takes_tokens_whose_heads_were_never_moved(batch: int) -> None:
    module, x = Attention(3), torch.randn(batch, 6, 36)
    model = lifted(module, x)
    moved = count(model, "Transpose")
    assert (rotary_embedding(model), attention_layout(model)) == (2, 1)
    assert moved - count(model, "Transpose") == 4
    assert_same(model, module, x)


class Masked(nn.Module):
    def forward(self, x):
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        mask = torch.tril(torch.ones(5, 5, dtype=torch.bool))
        return F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask).transpose(1, 2).flatten(2)


def test_attention_with_a_mask_is_left_alone() -> None:
    module, x = Masked(), torch.randn(1, 5, 8)
    model = lifted(module, x)
    assert attention_layout(model) == 0
    assert_same(model, module, x)
