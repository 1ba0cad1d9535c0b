import numpy as np
import pytest
import torch
from helpers.bundles.graph_runs import count, exported, run
from onnx_ir.passes.common import ShapeInferencePass
from torch import nn

from rap_edge.export.passes.conv3d_to_conv2d import conv3d_to_conv2d


class Convolutions(nn.Module):
    """Two 3-D convolutions with an activation between them."""

    def __init__(self, first: nn.Conv3d, second: nn.Conv3d) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def check(module: nn.Module, frames: int, dynamic_shapes=None, other_frames: int | None = None) -> None:
    x = torch.randn(1, 4, frames, 8, 8)
    model = exported(module, x, dynamic_shapes=dynamic_shapes)
    name = model.graph.inputs[0].name
    before = count(model, "Conv")
    assert conv3d_to_conv2d(model) == before == 2
    ShapeInferencePass()(model)
    assert all(len(node.inputs[1].shape) == 4 for node in model.graph if node.op_type == "Conv")
    for length in {frames, other_frames or frames}:
        y = torch.randn(1, 4, length, 8, 8)
        assert np.abs(run(model, {name: y.numpy()})[0] - module(y).detach().numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Conv3d(4, 6, 3, padding=(0, 1, 1)), nn.Conv3d(6, 4, 3, padding=(0, 1, 1))),
        (nn.Conv3d(4, 6, 3, stride=2, padding=(0, 1, 1)), nn.Conv3d(6, 4, 1)),
        (nn.Conv3d(4, 6, 3, padding=1, bias=False), nn.Conv3d(6, 4, (2, 3, 3), stride=(1, 2, 2))),
        (nn.Conv3d(4, 4, 3, dilation=(2, 1, 1), groups=2), nn.Conv3d(4, 4, (1, 3, 3))),
    ],
    ids=["plain", "strided", "padded in time", "dilated and grouped"],
)
def test_shifted_2d_convolutions_equal_the_3d_one(first: nn.Conv3d, second: nn.Conv3d) -> None:
    check(Convolutions(first, second), 9)


def test_the_number_of_frames_may_be_free() -> None:
    module = Convolutions(nn.Conv3d(4, 6, 3, padding=(0, 1, 1)), nn.Conv3d(6, 4, 3, stride=2, padding=(0, 1, 1)))
    check(module, 9, {"x": {2: torch.export.Dim("t", min=7, max=99)}}, other_frames=17)


def test_a_2d_convolution_is_left_alone() -> None:
    model = exported(nn.Conv2d(3, 3, 3), torch.randn(1, 3, 8, 8))
    assert conv3d_to_conv2d(model) == 0
    assert count(model, "Conv") == 1
