import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.attention_modules import Rotated
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.attention_layout import attention_layout
from rap_edge.export.passes.gpu.value_bias import value_bias
from rap_edge.export.passes.rotary_embedding import rotary_embedding


@pytest.mark.parametrize("heads_last", [False, True])
def test_the_bias_of_values_goes_into_that_of_the_output(heads_last: bool) -> None:
    module, x = Rotated(), torch.randn(1, 6, 36)
    model = lifted(module, x)
    if heads_last:
        rotary_embedding(model)
        attention_layout(model)
    sums = count(model, "Add")
    assert value_bias(model) == 1
    assert count(model, "Add") == sums - 1
    assert_same(model, module, x)


class Attention(nn.Module):
    def __init__(self, case: str) -> None:
        super().__init__()
        self.v, self.o, self.case = nn.Linear(8, 8), nn.Linear(8, 8, bias=case != "no bias"), case

    def forward(self, x):
        values = self.v(x)
        heads = [tensor.unflatten(-1, (2, -1)).transpose(1, 2) for tensor in (x, x, values)]
        mask = torch.tril(torch.ones(5, 5, dtype=torch.bool)) if self.case == "mask" else None
        result = F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
        return self.o(F.relu(result)) if self.case == "bent" else self.o(result) + (values if self.case == "sum" else 0)


@pytest.mark.parametrize(("case", "batch"), [("mask", 1), ("bent", 1), ("sum", 1), ("no bias", 1), ("", 2)])
def test_other_values_are_left_alone(case: str, batch: int) -> None:
    module, x = Attention(case), torch.randn(batch, 5, 8)
    model = lifted(module, x)
    assert value_bias(model) == 0
    assert_same(model, module, x)
