import pytest
import torch
from helpers.bundles.graph_runs import assert_same, count, lifted
from helpers.bundles.small_modules import Frames
from onnx_ir.passes.common import ShapeInferencePass
from torch import nn

from rap_edge.export.passes.channels_last_shuffle import channels_last_shuffle
from rap_edge.export.passes.merge_movement import merge_movement
from rap_edge.export.passes.pixel_rounding import pixel_rounding
from rap_edge.export.passes.reordered_bias import reordered_bias


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_bias_stands_between_a_reordering_and_a_shuffle_of_floats(kernel: int) -> None:
    conv = nn.Conv2d(5, 16, kernel, padding=kernel // 2)
    module, x = nn.Sequential(conv, nn.PixelShuffle(2)), torch.randn(2, 5, 6, 4)
    model = lifted(module, x)
    assert channels_last_shuffle(model) == 1
    assert reordered_bias(model) == 1
    (addition,) = (node for node in model.graph if node.op_type == "Add")
    assert addition.inputs[0].producer().op_type == "Transpose"
    assert addition.outputs[0].consumers()[0].op_type == "Reshape"
    assert_same(model, module, x)


def test_a_convolution_without_a_bias_or_without_movement_behind_it_is_left_alone() -> None:
    bare = nn.Sequential(nn.Conv2d(5, 16, 1, bias=False), nn.PixelShuffle(2))
    for module in (bare, nn.Conv2d(5, 16, 1)):
        model = lifted(module, torch.randn(2, 5, 6, 4))
        channels_last_shuffle(model)
        assert reordered_bias(model) == 0


def test_pixels_that_move_as_bytes_keep_their_bias_and_scale_in_the_convolution() -> None:
    model = lifted(Frames(), torch.randn(3, 5, 4, 6))
    for run_pass in (channels_last_shuffle, merge_movement, pixel_rounding):
        assert run_pass(model)
        ShapeInferencePass()(model)
    assert reordered_bias(model) == 0
    assert (count(model, "Mul"), count(model, "Add")) == (0, 0)
