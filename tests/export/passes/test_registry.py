from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import feeds, lifted, run
from helpers.bundles.small_modules import Frames, Tokens
from helpers.places import ROOT
from onnx_ir.passes.common import ShapeInferencePass
from torch import nn

from rap_edge.export.passes.registry import PASSES, choose_passes
from rap_edge.models.attention import SelfAttention, rotary_table
from rap_edge.models.nano_vae import Block

NO_PASS = ("__init__", "registry")


def test_every_file_is_a_pass_of_its_name() -> None:
    files = {file.stem for file in (ROOT / "export" / "passes").rglob("*.py")} - set(NO_PASS)
    assert files == set(PASSES)
    for name, item in PASSES.items():
        room = "gpu." if item.pays_on == "gpu" else ""
        assert item.rewrite.__module__ == f"rap_edge.export.passes.{room}{name}"
        assert item.rewrite.__name__ == item.name == name


def test_every_pass_comes_after_those_it_needs_and_says_why() -> None:
    before: set[str] = set()
    for item in PASSES.values():
        assert before.issuperset(item.after), item.name
        assert bool(item.after) == bool(item.reason), item.name
        before.add(item.name)


def test_passes_are_applied_in_their_order_whatever_the_order_they_are_named_in() -> None:
    chosen = choose_passes(("pixel_rounding", "fold_weights", "merge_movement"), "gpu")
    assert [item.name for item in chosen] == ["fold_weights", "merge_movement", "pixel_rounding"]


class Stored(nn.Module):
    """A convolution whose weight is stored in another shape, larger than what torch's exporter folds."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.weight = nn.Parameter(torch.randn(64 * 64 * 3**axes))

    def forward(self, x):
        return (F.conv1d if self.axes == 1 else F.conv3d)(x, self.weight.reshape(64, 64, *[3] * self.axes))


class Shuffled(nn.Module):
    """A residual block behind a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.shuffle, self.block = nn.Sequential(nn.Conv2d(4, 24, 1), nn.PixelShuffle(2)), Block(6, 1e-4)

    def forward(self, x):
        return self.block(self.shuffle(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = SelfAttention(36, 3, 1e-6)

    def forward(self, x):
        return self.inner(x, rotary_table(12, (2, 1, 3), x.device))


class Video(nn.Module):
    """A 3-D convolution whose output is moved and scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 12, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x):
        return self.conv(x).permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2) * 0.5


@pytest.mark.parametrize(
    ("first", "second", "module", "shape"),
    [
        ("fold_weights", "conv3d_to_conv2d", Stored(3), (1, 64, 3, 3, 3)),
        ("fold_weights", "conv1d_to_conv2d", Stored(1), (1, 64, 9)),
        ("channels_last_shuffle", "channels_last_norm", Shuffled(), (1, 4, 4, 3)),
        ("channels_last_shuffle", "channels_last_sum", Shuffled(), (1, 4, 4, 3)),
        ("rotary_embedding", "attention_layout", Attention(), (1, 6, 36)),
        ("attention_layout", "token_rows", Attention(), (1, 6, 36)),
        ("conv3d_to_conv2d", "merge_movement", Video(), (1, 3, 2, 4, 5)),
        ("channels_last_shuffle", "merge_movement", Frames(), (3, 5, 4, 6)),
        ("merge_movement", "pixel_rounding", Frames(), (3, 5, 4, 6)),
        ("rotary_halves", "attention_norm", Attention(), (1, 6, 36)),
    ],
)
def test_the_other_order_leaves_more_to_do(first: str, second: str, module: nn.Module, shape: tuple[int, ...]) -> None:
    assert first in PASSES[second].after
    x = torch.randn(shape)
    proto = ir.to_proto(lifted(module, x))
    right, wrong = (applied(ir.from_proto(proto), names) for names in ((first, second), (second, first)))
    assert right != wrong
    assert right.rewritten > wrong.rewritten or right.nodes < wrong.nodes


class Applied(NamedTuple):
    """How many nodes the second pass rewrote, and how many there are in the end."""

    rewritten: int
    nodes: int


def applied(model: ir.Model, names: Sequence[str]) -> Applied:
    counts = {}
    for name in names:
        ShapeInferencePass()(model)
        counts[name] = PASSES[name].rewrite(model)
    return Applied(sum(counts.values()), len(list(model.graph)))


def test_outputs_keep_their_names_and_types_in_every_pass() -> None:
    module, x = Tokens(), torch.randn(1, 5, 8)
    model = lifted(module, x)
    before = [(value.name, value.dtype, value.shape) for value in model.graph.outputs]
    for item in PASSES.values():
        item.rewrite(model)
    assert [(value.name, value.dtype, value.shape) for value in model.graph.outputs] == before
    assert all(value.dtype == ir.DataType.FLOAT for value in model.graph.outputs)


def test_nan_still_reaches_the_magnitude() -> None:
    module, x = Frames(), torch.randn(1, 5, 4, 4)
    model = lifted(module, x)
    for item in PASSES.values():
        item.rewrite(model)
        ShapeInferencePass()(model)
    x[0, 0, 0, 0] = float("nan")
    assert np.isnan(run(model, feeds(model, x))[1]).all()
