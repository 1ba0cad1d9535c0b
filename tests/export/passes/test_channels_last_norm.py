import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.bundles.graph_runs import assert_same, count, lifted
from torch import nn

from rap_edge.export.passes.channels_last_norm import channels_last_norm
from rap_edge.models.nano_vae import Block
from rap_edge.models.norms import ChannelNorm
from rap_edge.models.vaes.ltx_blocks import PixelNorm


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
