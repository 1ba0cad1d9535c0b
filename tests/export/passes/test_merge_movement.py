import numpy as np
import pytest
import torch
from helpers.bundles.graph_runs import assert_same, count, feeds, lifted, run
from helpers.bundles.small_modules import Frames
from onnx_ir.passes.common import ShapeInferencePass
from torch import nn

from rap_edge.export.passes.channels_last_shuffle import channels_last_shuffle
from rap_edge.export.passes.merge_movement import merge_movement


def test_a_decoder_ends_in_one_transposition_with_its_scale_in_the_weights() -> None:
    module, x = Frames(), torch.randn(3, 5, 4, 6)
    model = lifted(module, x)
    before = run(model, feeds(model, x))
    for run_pass in (channels_last_shuffle, merge_movement):
        run_pass(model)
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
