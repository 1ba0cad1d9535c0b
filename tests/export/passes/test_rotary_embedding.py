import pytest
import torch
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.rotary_embedding import rotary_embedding
from rap_edge.models.attention import apply_rotary, rotary_table


class Rotation(nn.Module):
    def __init__(self, *, per_head: bool = False) -> None:
        super().__init__()
        cosine, sine = rotary_table(12, (2, 1, 3), torch.device("cpu"))
        self.tables = (torch.rand(6, 4, 6), torch.rand(6, 4, 6)) if per_head else (cosine, sine)

    def forward(self, x):
        return apply_rotary(x, *self.tables, 4)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_rotation_of_channel_pairs_is_one_node(batch: int) -> None:
    module, x = Rotation(), torch.randn(batch, 6, 48)
    model = lifted(module, x)
    assert rotary_embedding(model) == 1
    assert (count(model, "RotaryEmbedding"), count(model, "Mul"), count(model, "Gather")) == (1, 0, 0)
    assert_same(model, module, x)


def test_a_rotation_that_differs_from_head_to_head_is_left_alone() -> None:
    module, x = Rotation(per_head=True), torch.randn(1, 6, 48)
    model = lifted(module, x)
    assert rotary_embedding(model) == 0
    assert_same(model, module, x)


class Turned(nn.Module):
    """The rotation by the opposite angle, which has the same nodes in another order."""

    def forward(self, x):
        pairs = x.unflatten(-1, (4, -1, 2))
        cosine, sine = rotary_table(12, (2, 1, 3), torch.device("cpu"))
        even, odd = pairs[..., 1], pairs[..., 0]
        return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(2)


def test_a_rotation_of_swapped_pairs_is_left_alone() -> None:
    module, x = Turned(), torch.randn(1, 6, 48)
    model = lifted(module, x)
    assert rotary_embedding(model) == 0
    assert_same(model, module, x)
