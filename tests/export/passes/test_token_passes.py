"""Passes over tokens and sequences: attention, modulation, matrices of tokens, 1-D convolutions, weights, pixels."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import assert_same, count, feeds, lifted, run
from torch import nn

from rap_edge.export.exporter import PASSES
from rap_edge.export.passes.attention_layout import attention_layout, rotary_embedding
from rap_edge.export.passes.channels_last import channels_last_norm, channels_last_sum
from rap_edge.export.passes.conv1d import conv1d_to_conv2d
from rap_edge.export.passes.fold_weights import fold_weights
from rap_edge.export.passes.modulated_norm import modulated_norm
from rap_edge.export.passes.pixel_rounding import pixel_rounding
from rap_edge.export.passes.token_rows import token_rows
from rap_edge.models.attention import SelfAttention, apply_rotary, rotary_table
from rap_edge.models.nano_vae import Block


class Rotation(nn.Module):
    def __init__(self, *, per_head: bool = False) -> None:
        super().__init__()
        cosine, sine = rotary_table(12, (2, 1, 3), torch.device("cpu"))
        self.tables = (torch.rand(6, 4, 6), torch.rand(6, 4, 6)) if per_head else (cosine, sine)

    def forward(self, x):
        return apply_rotary(x, *self.tables, 4)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_rotation_of_channel_pairs_is_one_node(batch: int) -> None:
    module, x = Rotation(), torch.randn(batch, 6, 48)
    model = lifted(module, x)
    assert rotary_embedding(model) == 1
    assert (count(model, "RotaryEmbedding"), count(model, "Mul"), count(model, "Gather")) == (1, 0, 0)
    assert_same(model, module, x)


def test_a_rotation_that_differs_from_head_to_head_is_left_alone() -> None:
    module, x = Rotation(per_head=True), torch.randn(1, 6, 48)
    model = lifted(module, x)
    assert rotary_embedding(model) == 0
    assert_same(model, module, x)


class Turned(nn.Module):
    """The rotation by the opposite angle, which has the same nodes in another order."""

    def forward(self, x):
        pairs = x.unflatten(-1, (4, -1, 2))
        cosine, sine = rotary_table(12, (2, 1, 3), torch.device("cpu"))
        even, odd = pairs[..., 1], pairs[..., 0]
        return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(2)


def test_a_rotation_of_swapped_pairs_is_left_alone() -> None:
    module, x = Turned(), torch.randn(1, 6, 48)
    model = lifted(module, x)
    assert rotary_embedding(model) == 0
    assert_same(model, module, x)


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.inner = SelfAttention(12 * heads, heads, 1e-6)

    def forward(self, x):
        return self.inner(x, rotary_table(12, (2, 1, 3), x.device))


@pytest.mark.parametrize("batch", [1, 2])
def test_attention_takes_tokens_whose_heads_were_never_moved(batch: int) -> None:
    module, x = Attention(3), torch.randn(batch, 6, 36)
    model = lifted(module, x)
    moved = count(model, "Transpose")
    assert (rotary_embedding(model), attention_layout(model)) == (2, 1)
    assert moved - count(model, "Transpose") == 4
    assert_same(model, module, x)


class Masked(nn.Module):
    def forward(self, x):
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        mask = torch.tril(torch.ones(5, 5, dtype=torch.bool))
        return F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask).transpose(1, 2).flatten(2)


def test_attention_with_a_mask_is_left_alone() -> None:
    module, x = Masked(), torch.randn(1, 5, 8)
    model = lifted(module, x)
    assert attention_layout(model) == 0
    assert_same(model, module, x)


class Modulated(nn.Module):
    def __init__(self, *, affine: bool = False, per_token: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, elementwise_affine=affine)
        nn.init.normal_(self.norm.weight) if affine else None
        self.to_scale = nn.Linear(8, 16)
        self.per_token = per_token

    def forward(self, x):
        source = x if self.per_token else x.mean(1, keepdim=True)
        scale, shift = self.to_scale(source).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


def test_modulation_that_is_the_same_for_all_tokens_goes_into_the_norm() -> None:
    module, x = Modulated(), torch.randn(1, 5, 8)
    model = lifted(module, x)
    assert modulated_norm(model) == 1
    assert count(model, "Mul") == 0
    assert_same(model, module, x)


@pytest.mark.parametrize(
    ("module", "batch"), [(Modulated(affine=True), 1), (Modulated(per_token=True), 1), (Modulated(), 2)]
)
def test_other_modulation_is_left_alone(module: nn.Module, batch: int) -> None:
    x = torch.randn(batch, 5, 8)
    model = lifted(module, x)
    assert modulated_norm(model) == 0
    assert_same(model, module, x)


class Tokens(nn.Module):
    """Residual branch with a gate per channel, an offset per token and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.gate = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x):
        hidden = F.gelu(self.up(self.norm(x)), approximate="tanh")
        y = x + self.gate * self.down(hidden) + self.places
        return y.transpose(1, 2), y


@pytest.mark.parametrize("batch", [1, 2])
def test_tokens_become_a_matrix_once(batch: int) -> None:
    module, x = Tokens(), torch.randn(batch, 5, 8)
    model = lifted(module, x)
    outputs = [value.name for value in model.graph.outputs]
    assert token_rows(model) >= 8 - (batch - 1)
    products = [node for node in model.graph if node.op_type == "MatMul"]
    assert [len(node.outputs[0].shape) for node in products] == [2, 2]
    assert all(node.inputs[1].const_value is not None for node in products)
    assert [value.name for value in model.graph.outputs] == outputs
    assert_same(model, module, x)


def test_norms_that_no_matrix_product_needs_stay_as_they_are() -> None:
    module, x = nn.LayerNorm(8), torch.randn(1, 5, 8)
    model = lifted(module, x)
    assert token_rows(model) == 0
    assert_same(model, module, x)


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


def _lonely_transpositions(model: ir.Model) -> int:
    """How many move pictures between channels first and last with no convolution beside them to absorb it."""
    count = 0
    for node in model.graph:
        if node.op_type == "Transpose" and len(node.inputs[0].shape) == 4 and not node.outputs[0].is_graph_output():
            beside = [node.inputs[0].producer(), *node.outputs[0].consumers()]
            count += not any(other is not None and other.op_type == "Conv" for other in beside)
    return count


def test_a_residual_block_adds_where_its_input_lies() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shuffle = nn.Sequential(nn.Conv2d(4, 24, 1), nn.PixelShuffle(2))
            self.block = Block(6, 1e-4)
            self.out = Block(6, 1e-4)

        def forward(self, x):
            return self.out(self.block(self.shuffle(x)))

    module, x = Blocks(), torch.randn(1, 4, 4, 3)
    model = lifted(module, x)
    for run_pass in (PASSES["channels_last_shuffle"], channels_last_norm):
        run_pass(model)
    assert _lonely_transpositions(model) == 2
    assert channels_last_sum(model) == 2
    assert _lonely_transpositions(model) == 0
    assert_same(model, module, x)


def test_a_weight_is_stored_as_it_is_used() -> None:
    class Patch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, 1, 1, 1))

        def forward(self, x):
            return F.linear(x, self.weight.flatten(1))

    module, x = Patch(), torch.randn(1, 3, 4)
    model = lifted(module, x)
    fold_weights(model)
    product = next(node for node in model.graph if node.op_type in ("MatMul", "Gemm"))
    assert product.inputs[1].const_value is not None
    assert_same(model, module, x)


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


def test_outputs_keep_their_names_and_types_in_every_pass() -> None:
    module, x = Tokens(), torch.randn(1, 5, 8)
    model = lifted(module, x)
    before = [(value.name, value.dtype, value.shape) for value in model.graph.outputs]
    for run_pass in PASSES.values():
        run_pass(model)
    assert [(value.name, value.dtype, value.shape) for value in model.graph.outputs] == before
    assert all(value.dtype == ir.DataType.FLOAT for value in model.graph.outputs)
