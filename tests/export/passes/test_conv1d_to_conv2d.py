import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import assert_same, lifted
from torch import nn

from rap_edge.export.passes.conv1d_to_conv2d import conv1d_to_conv2d


class Sequence(nn.Module):
    """1-D convolutions with a norm over channels, or an activation alone, between them."""

    def __init__(self, *, normed: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 8, 4, stride=2, bias=False)
        self.second = nn.Conv1d(8, 6, 3, padding=1, dilation=2)
        self.norm = nn.LayerNorm(8) if normed else None

    def forward(self, x):
        x = self.first(x)
        if self.norm is not None:
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.second(F.gelu(x))


@pytest.mark.parametrize("normed", [True, False])
def test_a_sequence_is_convolved_as_a_picture_of_one_row(normed: bool) -> None:
    module, x = Sequence(normed=normed), torch.randn(2, 3, 21)
    model = lifted(module, x)
    assert conv1d_to_conv2d(model) == 2
    kernels = [tuple(node.inputs[1].shape) for node in model.graph if node.op_type == "Conv"]
    assert kernels == [(8, 3, 1, 4), (6, 8, 1, 3)]
    swaps = [n for n in model.graph if n.op_type == "Transpose" and len(n.inputs[0].shape) == 3]
    assert swaps == []
    assert_same(model, module, x)


def test_grouped_convolutions_of_sequences_stay() -> None:
    module, x = nn.Conv1d(6, 6, 3, groups=3), torch.randn(1, 6, 9)
    model = lifted(module, x)
    assert conv1d_to_conv2d(model) == 0
    assert_same(model, module, x)
