"""What a module's run would take, told without running it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rap_edge.export.capture.unrun import unrun_bytes, unrun_flops


class Doubling(nn.Module):
    """Holds its input, twice its size, and four times its size, but never all three of the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 20), nn.Linear(20, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)).sum()


class Looking(nn.Module):
    """Attention of two heads."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        return scaled_dot_product_attention(heads, heads, heads)


def test_products_are_counted_twice() -> None:
    assert unrun_flops(Doubling(), (1, 7, 10)) == 2 * 7 * (10 * 20 + 20 * 40)
    assert unrun_flops(Looking(), (1, 100, 8)) == 4 * 100 * 100 * 8


def test_what_is_held_together_is_added_up_and_weights_are_not() -> None:
    held = unrun_bytes(Doubling(), (1, 10_000, 10)) / (2 * 4 * 10_000)
    assert 10 + 20 + 40 <= held < 10 + 20 + 41


def test_scores_of_attention_grow_with_the_square_of_the_time() -> None:
    short, long = (unrun_bytes(Looking(), (1, time, 8)) for time in (1000, 10_000))
    assert short >= 2 * 4 * 2 * 1000**2
    assert 90 * short < long < 100 * short
    # Nothing of the kind was made.
    assert unrun_bytes(Looking(), (1, 1_000_000, 8)) > 1e13


def test_a_module_is_as_it_was() -> None:
    module = Doubling()
    unrun_bytes(module, (1, 7, 10))
    assert type(module.first.weight) is nn.Parameter
    assert torch.isfinite(module(torch.ones(1, 7, 10)))
