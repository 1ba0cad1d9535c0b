"""Attention in other people's handwriting: one capture holds many hands, as torch takes seconds for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.bundles.graph_runs import count, lifted, run
from helpers.bundles.small import SMALL
from torch import Tensor, nn

from rap_edge.export.capture.recognition import Recognition, recognise
from rap_edge.export.hybrid_attention.onnx_function import carry_definition
from rap_edge.export.passes.attention_layout import attention_layout
from rap_edge.runtime.errors import ExportError

HEADS, WIDTH, FRAMES = 2, 4, 2
Written = Callable[[Tensor, Tensor, Tensor], Tensor]


def heads(x: Tensor) -> Tensor:
    """[B, N, heads * d] -> [B, heads, N, d]."""
    return x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """[B, heads, N, d] -> [B, N, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def textbook(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = heads(q), heads(k), heads(v)
    return joined((q @ k.transpose(-2, -1) / WIDTH**0.5).softmax(-1) @ v)


def einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.unflatten(-1, (HEADS, WIDTH)) for x in (q, k, v))
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) * WIDTH**-0.5).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2)


def heads_in_the_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (heads(x).flatten(0, 1) for x in (q * 0.7, k, v))
    return joined(torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).unflatten(0, (-1, HEADS)))


def keys_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.unflatten(-1, (HEADS, WIDTH)) for x in (q, k, v))
    weights = torch.einsum("bmhd,bnhd->bhmn", k, q).transpose(-1, -2).softmax(-1)
    return torch.einsum("bmhd,bhnm->bhdn", v, weights).flatten(1, 2).transpose(1, 2)


def frame_by_frame(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.unflatten(1, (FRAMES, -1)).flatten(0, 1) for x in (q, k, v))
    return textbook(q, k, v).unflatten(0, (-1, FRAMES)).flatten(1, 2)


def frames_as_an_axis(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.unflatten(-1, (HEADS, WIDTH)).unflatten(1, (FRAMES, -1)) for x in (q, k, v))
    weights = (torch.einsum("bfnhd,bfmhd->bfhnm", q, k) * WIDTH**-0.5).softmax(-1)
    return torch.einsum("bfhnm,bfmhd->bfnhd", weights, v).flatten(3).flatten(1, 2)


def pytorch_own(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return joined(nn.functional.scaled_dot_product_attention(heads(q), heads(k), heads(v)))


PLAIN: tuple[Written, ...] = (textbook, einsum, heads_in_the_batch, keys_first, frame_by_frame, frames_as_an_axis)
HYBRID: tuple[Written, ...] = (
    lambda q, k, v: 0.3 * frame_by_frame(q, k, v) + 0.7 * textbook(q, k, v),
    lambda q, k, v: einsum(q, k, v) * 0.25 + frames_as_an_axis(q, k, v) * 0.75,
    lambda q, k, v: torch.lerp(pytorch_own(q, k, v), frame_by_frame(q, k, v), 0.3),
    lambda q, k, v: torch.lerp(textbook(q, k, v), frames_as_an_axis(q, k, v), 0.8),
    lambda q, k, v: einsum(q, k, v) + 0.4 * (frame_by_frame(q, k, v) - einsum(q, k, v)),
    # Branches with keys and values of their own.
    lambda q, k, v: 0.5 * frame_by_frame(q, k, v) + 0.5 * textbook(q, k * 2.0, v + 1.0),
)
NOT_HYBRID: tuple[Written, ...] = (
    lambda q, k, v: 0.3 * frame_by_frame(q, k, v) + 0.3 * textbook(q, k, v),
    lambda q, k, v: 0.3 * frame_by_frame(q, k, v) + 0.7 * textbook(q + 1.0, k, v),
    lambda q, k, v: 0.3 * frame_by_frame(q, k, v) + 0.7 * textbook(q, k, v).flip(1),
)


class Hands(nn.Module):
    def __init__(self, *hands: Written) -> None:
        super().__init__()
        self.hands = hands

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        # Inputs of its own for each, or torch would see one attention in two of them.
        return tuple(hand(q + 0.05 * i, k - 0.05 * i, v + 0.05 * i) for i, hand in enumerate(self.hands))


@pytest.fixture(scope="module")
def searched() -> tuple[ir.Model, Recognition]:
    """The graph of all hands after the search, which has been found to compute what it did."""
    torch.manual_seed(0)
    module, batch = Hands(*PLAIN, *HYBRID, *NOT_HYBRID), 2
    inputs = [torch.randn(batch, tokens, HEADS * WIDTH) for tokens in (6, 4, 4)]
    model = lifted(module, *inputs)
    before = {str(value.name): x.numpy() for value, x in zip(model.graph.inputs, inputs, strict=True)}
    with torch.no_grad():
        expected = module(*inputs)
    found = recognise(model, SMALL)
    carry_definition(model)
    for got, wanted in zip(run(model, before), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=2e-5, rtol=1e-4)
    return model, found


def test_attention_is_found_however_it_is_written(searched) -> None:
    model, found = searched
    assert (found.attention, found.left) == (len(PLAIN) + 2 * len(NOT_HYBRID), ())
    assert [count(model, op_type) for op_type in ("Softmax", "Einsum", "MatMul", "Where")] == [0, 0, 0, 0]


def test_two_branches_and_their_weights_are_one_hybrid_attention(searched) -> None:
    model, found = searched
    nodes = [node for node in model.graph if node.domain == "rap"]
    assert found.hybrid == len(nodes) == len(HYBRID)
    assert {node.attributes.get_int("frames") for node in nodes} == {FRAMES}
    weights = sorted(round(node.attributes.get_float("alpha"), 3) for node in nodes)
    assert weights == [0.3, 0.3, 0.4, 0.5, 0.75, 0.8]


def test_heads_are_moved_as_pytorch_moves_them_so_that_the_passes_know_how_to_undo_it(searched) -> None:
    model, _ = searched
    assert attention_layout(model) >= len(PLAIN) + 2 * len(NOT_HYBRID) - 1  # but where the author has channels first


def graph(body: str) -> ir.Model:
    """A graph of queries [1, 2, 6, 4], keys and values [1, 2, 5, 4], and a mask [1, 2, 6, 5]."""
    text = f"""<ir_version: 10, opset_import: ["": 23]>
    hands (float[1,2,6,4] q, float[1,2,5,4] k, float[1,2,5,4] v, float[1,2,6,5] mask) =>
        (float[1,2,6,4] y, float[1,2,6,5] p)
    {{ kt = Transpose <perm: ints = [0,1,3,2]> (k) {body} }}"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    for node in model.graph:
        node.name = f"block.0/{node.op_type}_1"
    return model


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("s = MatMul(q, kt) m = Add(s, mask) z = Softmax(m) p = Neg(mask) y = MatMul(z, v)", "a mask or a bias"),
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v)", "read by something else"),
        ("s = MatMul(q, kt) z = Softmax<axis: int = 2>(s) p = Neg(mask) y = MatMul(z, v)", "not over the last axis"),
        ("s = MatMul(q, kt) z = Softmax(s) r = Relu(z) p = Neg(mask) y = MatMul(r, v)", "a Relu stands between"),
    ],
)
def test_what_is_left_is_named_with_its_place(body: str, why: str) -> None:
    model = graph(body)
    found = recognise(model, SMALL)
    assert (found.attention, len(found.left), count(model, "Softmax")) == (0, 1, 1)
    assert found.left[0].startswith("block.0/Softmax_1: ")
    assert why in found.left[0]


def test_a_softmax_that_is_no_attention_is_not_spoken_of() -> None:
    model = graph("a = MatMul(q, kt) s = Relu(a) z = Softmax(s) p = Neg(mask) y = MatMul(z, v)")
    assert recognise(model, SMALL).left == ()


def hybrid_layer(alpha: float) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["": 23, "rap": 1]>
    dit (float[1,4,8] q, float[1,4,8] audio_key_00, float[1,4,8] audio_value_00) => (float[1,4,8] y) {{
        y = rap.HybridAttention <num_heads: int = 2, frames: int = 2, alpha: float = {alpha}>
            (q, audio_key_00, audio_value_00, audio_key_00, audio_value_00)
    }}"""
    return ir.serde.deserialize_model(onnx.parser.parse_model(text))


def test_branches_are_weighted_as_the_spec_says() -> None:
    spec = dataclasses.replace(SMALL, alpha=(0.3, 1.0))
    assert recognise(hybrid_layer(0.3), spec).left == ()
    with pytest.raises(ExportError, match=r"window of layer 0 by 0\.7 and alpha of spec 'small' by 0\.3"):
        recognise(hybrid_layer(0.7), spec)
    (left,) = recognise(hybrid_layer(0.3), dataclasses.replace(SMALL, alpha=(0.3, 0.5))).left
    assert left.startswith("audio_key_01: its two branches")
