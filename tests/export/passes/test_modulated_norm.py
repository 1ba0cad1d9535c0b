import pytest
import torch
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.modulated_norm import modulated_norm


class Modulated(nn.Module):
    def __init__(self, *, affine: bool = False, per_token: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, elementwise_affine=affine)
        nn.init.normal_(self.norm.weight) if affine else None
        self.to_scale = nn.Linear(8, 16)
        self.per_token = per_token

    def forward(self, x):
        source = x if self.per_token else x.mean(1, keepdim=True)
        scale, shift = self.to_scale(source).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


def test_modulation_that_is_the_same_for_all_tokens_goes_into_the_norm() -> None:
    module, x = Modulated(), torch.randn(1, 5, 8)
    model = lifted(module, x)
    assert modulated_norm(model) == 1
    assert count(model, "Mul") == 0
    assert_same(model, module, x)


@pytest.mark.parametrize(
    ("module", "batch"), [(Modulated(affine=True), 1), (Modulated(per_token=True), 1), (Modulated(), 2)]
)
def test_other_modulation_is_left_alone(module: nn.Module, batch: int) -> None:
    x = torch.randn(batch, 5, 8)
    model = lifted(module, x)
    assert modulated_norm(model) == 0
    assert_same(model, module, x)
