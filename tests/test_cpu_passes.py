"""Passes that only reorder or merge what the decoder's end computes: the numbers must not change."""

import numpy as np
import pytest
import torch
from graph_runs import count, exported, run
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass
from torch import nn

from rap_edge.export.pixels import convert_before_moving
from rap_edge.export.transposed_conv import pixel_shuffle_to_transposed_conv


class Frames(nn.Module):
    """Patches [T, 12, h, w] to uint8 frames [T, 2h, 2w, 3] and the pixels' mean magnitude."""

    def __init__(self, *, per_channel: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 12, 3, padding=1)
        self.scale = torch.full((3, 1, 1, 1) if per_channel else (), 127.5)

    def forward(self, x):
        pixels = nn.functional.pixel_shuffle(self.conv(x), 2).unflatten(0, (1, -1)).transpose(1, 2).squeeze(0)
        levels = (pixels * self.scale + 127.5).round().clamp(0.0, 255.0)
        return levels.permute(1, 2, 3, 0).to(torch.uint8), pixels.abs().mean().reshape(1)


def lifted(module: nn.Module, x: torch.Tensor):
    model = exported(module, x)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def feeds(model, x: torch.Tensor) -> dict[str, np.ndarray]:
    return {model.graph.inputs[0].name: x.numpy()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [2, 3])
def test_a_transposed_convolution_equals_convolution_and_pixel_shuffle(bias: bool, block: int) -> None:
    module = nn.Sequential(nn.Conv2d(5, 4 * block**2, 1, bias=bias), nn.PixelShuffle(block))
    x = torch.randn(2, 5, 6, 4)
    model = lifted(module, x)
    before = run(model, feeds(model, x))[0]
    assert pixel_shuffle_to_transposed_conv(model) == 1
    assert (count(model, "DepthToSpace"), count(model, "ConvTranspose")) == (0, 1)
    np.testing.assert_allclose(run(model, feeds(model, x))[0], before, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(5, 16, 3, padding=1), nn.PixelShuffle(2)),
        nn.Sequential(nn.Conv2d(5, 16, 1, padding=1), nn.PixelShuffle(2)),
        nn.Sequential(nn.Conv2d(5, 16, 1), nn.ReLU(), nn.PixelShuffle(2)),
    ],
    ids=["3x3", "padded", "activation between"],
)
def test_other_convolutions_keep_their_pixel_shuffle(module: nn.Module) -> None:
    x = torch.randn(1, 5, 6, 4)
    assert pixel_shuffle_to_transposed_conv(lifted(module, x)) == 0


def test_pixels_are_bytes_before_they_are_moved_and_the_frames_are_the_same() -> None:
    module, x = Frames(), torch.randn(3, 5, 4, 6)
    model = lifted(module, x)
    before = run(model, feeds(model, x))
    assert convert_before_moving(model) == 1
    ShapeInferencePass()(model)
    moved = [n for n in model.graph if n.op_type in ("DepthToSpace", "Transpose")]
    assert moved
    assert all(n.outputs[0].dtype.numpy() == np.uint8 for n in moved)
    after = run(model, feeds(model, x))
    assert np.array_equal(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1], rtol=1e-6)


def test_nan_still_reaches_the_magnitude() -> None:
    module, x = Frames(), torch.randn(1, 5, 4, 4)
    model = lifted(module, x)
    convert_before_moving(model)
    x[0, 0, 0, 0] = float("nan")
    assert np.isnan(run(model, feeds(model, x))[1]).all()


def test_a_scale_per_channel_stays_behind_the_movement_that_makes_the_channel() -> None:
    module, x = Frames(per_channel=True), torch.randn(3, 5, 4, 6)
    model = lifted(module, x)
    before = run(model, feeds(model, x))[0]
    convert_before_moving(model)
    assert np.array_equal(run(model, feeds(model, x))[0], before)
