import pytest
import torch
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.channels_last_shuffle import channels_last_shuffle


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("block", [2, 3])
def test_a_pixel_shuffle_moves_runs_of_channels(bias: bool, kernel: int, block: int) -> None:
    conv = nn.Conv2d(5, 4 * block**2, kernel, padding=kernel // 2, bias=bias)
    module, x = nn.Sequential(conv, nn.PixelShuffle(block)), torch.randn(2, 5, 6, 4)
    model = lifted(module, x)
    assert channels_last_shuffle(model) == 1
    assert count(model, "DepthToSpace") == 0
    assert_same(model, module, x)


def test_a_pixel_shuffle_behind_something_else_is_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(5, 16, 1), nn.ReLU(), nn.PixelShuffle(2))
    assert channels_last_shuffle(lifted(module, torch.randn(1, 5, 6, 4))) == 0
