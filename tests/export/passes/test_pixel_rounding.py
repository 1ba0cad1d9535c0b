import numpy as np
import torch
from helpers.bundles.graph_runs import count, feeds, lifted, run
from torch import nn

from rap_edge.export.passes.pixel_rounding import pixel_rounding


class Pixels(nn.Module):
    def __init__(self, top: float = 255.0) -> None:
        super().__init__()
        self.top = top

    def forward(self, x):
        return x.round().clamp(0.0, self.top).permute(0, 2, 1).to(torch.uint8)


def test_pixels_are_rounded_and_clipped_as_before() -> None:
    module = Pixels()
    edges = [-300.0, -0.5, 0.49, 0.5, 1.5, 2.5, 254.5, 255.4, 255.5, 256.0, 1e9, -1e9]
    x = torch.tensor(edges).reshape(1, 3, 4)
    model = lifted(module, x)
    assert pixel_rounding(model) == 1
    assert count(model, "Round") == count(model, "Clip") == count(model, "Cast") == 0
    assert np.array_equal(run(model, feeds(model, x))[0], module(x).numpy())


def test_a_clip_to_another_range_is_left_alone() -> None:
    module, x = Pixels(235.0), torch.rand(1, 3, 4) * 300
    model = lifted(module, x)
    assert pixel_rounding(model) == 0
    assert np.array_equal(run(model, feeds(model, x))[0], module(x).numpy())
