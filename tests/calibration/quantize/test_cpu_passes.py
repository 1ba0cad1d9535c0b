"""Passes that only reorder, merge or lay out anew what a graph computes: the numbers must not change."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import assert_same, count, feeds, lifted, run
from onnx_ir.passes.common import ShapeInferencePass
from torch import nn

from rap_edge.export.exporter import PASSES
from rap_edge.export.passes.channels_last import channels_last_norm, channels_last_shuffle
from rap_edge.export.passes.movement import merge_movement
from rap_edge.models.nano_vae import Block, ChannelNorm
from rap_edge.models.vae import PixelNorm


class Frames(nn.Module):
    """Patches [T, 5, h, w] to uint8 frames [T, 2h, 2w, 3] and the pixels' mean magnitude, as a decoder ends."""

    def __init__(self, *, per_channel: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 12, 3, padding=1)
        self.scale = torch.tensor([100.0, 110.0, 120.0]).view(3, 1, 1, 1) if per_channel else 127.5

    def forward(self, x):
        pixels = F.pixel_shuffle(self.conv(x), 2).unflatten(0, (1, -1)).transpose(1, 2).squeeze(0)
        levels = pixels * self.scale + 127.5
        frames = levels.round().clamp(0.0, 255.0).permute(1, 2, 3, 0)
        return frames.to(torch.uint8), levels.abs().mean().reshape(1)


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


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (ChannelNorm(6, 1e-4), (2, 6, 4, 3)),
        (nn.Sequential(ChannelNorm(6, 1e-4), nn.SiLU(), nn.Conv2d(6, 4, 3)), (2, 6, 4, 3)),
        (nn.Sequential(PixelNorm(), nn.SiLU()), (1, 6, 3, 4, 2)),
        (Block(6, 1e-4), (2, 6, 4, 4)),
    ],
    ids=["with gain", "with SiLU", "five axes", "residual block"],
)
def test_a_norm_over_channels_is_one_node_on_the_last_axis(module: nn.Module, shape: tuple[int, ...]) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape)
    model = lifted(module, x)
    assert channels_last_norm(model) == 1
    assert (count(model, "RMSNormalization"), count(model, "ReduceMean")) == (1, 0)
    assert_same(model, module, x)


def test_a_transposition_that_another_norm_needs_later_is_made_early_enough_for_both() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pixel, self.layer = nn.Conv2d(4, 4, 1), PixelNorm(), nn.LayerNorm(4)

        def forward(self, x):
            x = self.conv(x)
            pixel = self.pixel(x)
            return pixel + self.layer(x.movedim(1, -1)).movedim(-1, 1)

    x = torch.rand(1, 4, 3, 5)
    module = Both()
    model = lifted(module, x)
    assert channels_last_norm(model) == 1
    assert count(model, "Transpose") == 3
    # The checker wants nodes in the order of their inputs.
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    assert_same(model, module, x)


def test_other_means_over_channels_are_left_alone() -> None:
    class Variance(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.square().mean(2, keepdim=True) + 1e-3), x.square().mean(1, keepdim=True)

    module, x = Variance(), torch.randn(2, 3, 4, 5)
    model = lifted(module, x)
    assert channels_last_norm(model) == 0
    assert_same(model, module, x)


def test_a_decoder_ends_in_one_transposition_with_its_scale_in_the_weights() -> None:
    module, x = Frames(), torch.randn(3, 5, 4, 6)
    model = lifted(module, x)
    before = run(model, feeds(model, x))
    for name in ("channels_last_shuffle", "merge_movement"):
        PASSES[name](model)
        ShapeInferencePass()(model)
    after = run(model, feeds(model, x))
    # The convolution's own reordering to channels last, and the one that puts pixels in their places.
    assert count(model, "Transpose") == 2
    assert (count(model, "Mul"), count(model, "Add")) == (0, 0)
    assert np.abs(after[0].astype(int) - before[0]).max() <= 1
    assert (after[0] != before[0]).mean() < 1e-3
    np.testing.assert_allclose(after[1], before[1], rtol=1e-5)


def test_a_scale_per_channel_stays_behind_the_movement_that_makes_the_channel() -> None:
    module, x = Frames(per_channel=True), torch.randn(3, 5, 4, 6)
    model = lifted(module, x)
    before = run(model, feeds(model, x))[0]
    merge_movement(model)
    assert np.array_equal(run(model, feeds(model, x))[0], before)


def test_nan_still_reaches_the_magnitude() -> None:
    module, x = Frames(), torch.randn(1, 5, 4, 4)
    model = lifted(module, x)
    for run_pass in PASSES.values():
        run_pass(model)
        ShapeInferencePass()(model)
    x[0, 0, 0, 0] = float("nan")
    assert np.isnan(run(model, feeds(model, x))[1]).all()


class Chain(nn.Module):
    """Reshapes and transpositions that split, merge and reorder axes, with elementwise work inside."""

    def __init__(self, case: int) -> None:
        super().__init__()
        self.case = case

    def forward(self, x):
        if self.case == 0:
            y = x.unflatten(1, (2, 3)).permute(0, 2, 1, 3, 4).flatten(1, 2) * 2.0
            return y.permute(0, 2, 3, 1).reshape(2, -1)
        if self.case == 1:
            y = (x.reshape(4, 3, 5, 4).transpose(0, 1) + 1.0).reshape(3, 2, 40)
            return y.transpose(1, 2).clamp(0.0, 1.0).flatten()
        if self.case == 2:
            y = x.transpose(1, 3).transpose(1, 3)
            return y.unsqueeze(0).squeeze(1) if y.shape[0] == 1 else y.flatten(2).unflatten(2, (5, 4))
        y = x.reshape(8, 15, 2).transpose(0, 1)  # cuts the axis of 6 where 8 does not divide
        return y.reshape(5, 3, 16).transpose(0, 2)


@pytest.mark.parametrize("case", range(4))
def test_chains_of_movement_are_merged_and_give_the_same(case: int) -> None:
    module, x = Chain(case), torch.randn(2, 6, 5, 4)
    model = lifted(module, x)
    before = sum(node.op_type in ("Reshape", "Transpose") for node in model.graph)
    merge_movement(model)
    assert sum(node.op_type in ("Reshape", "Transpose") for node in model.graph) <= max(before, 1)
    assert_same(model, module, x)


def test_movement_of_a_free_size_is_left_alone() -> None:
    module, x = Chain(0), torch.randn(2, 6, 5, 4)
    model = lifted(module, x, dynamic_shapes={"x": {2: torch.export.Dim("rows", min=3, max=9)}})
    merge_movement(model)
    assert_same(model, module, torch.randn(2, 6, 7, 4))
    assert_same(model, module, x)
