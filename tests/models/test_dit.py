"""The DiT against the published implementation's numbers, and its hybrid attention against the definition."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.seeded_weights import load_case
from safetensors.torch import save_file
from torch import Tensor

from rap_edge.models.attention import HybridAttention, apply_rotary, hybrid_attention, rotary_table
from rap_edge.models.checkpoints.flashhead import load_flashhead_dit
from rap_edge.models.dit import DiT, DiTConfig, timestep_sinusoid
from rap_edge.models.presets import FLASHHEAD_LITE
from rap_edge.runtime.errors import CheckpointError

SMALL = {
    "dim": 48,
    "in_dim": 8,
    "out_dim": 4,
    "ffn_dim": 40,
    "freq_dim": 16,
    "num_heads": 3,
    "num_layers": 3,
    "alpha": (0.0, 0.4, 1.0),
    "audio_layers": 2,
    "audio_width": 6,
    "audio_tokens": 3,
    "audio_hidden": 10,
    "temporal_compression": 4,
}


def small_dit(**changes: object) -> DiT:
    torch.manual_seed(2)
    return DiT(DiTConfig(**(SMALL | changes))).eval()


def inputs(dit: DiT, batch: int = 2, latents: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, timestep, audio features and reference."""
    config, draw = dit.config, torch.Generator().manual_seed(4)
    frames = config.temporal_compression * (latents - 1) + 1
    shape = (batch, config.out_dim, latents, 2, 2)
    features = (batch, frames, config.feature_window, config.audio_layers, config.audio_width)
    return (
        torch.randn(shape, generator=draw),
        torch.linspace(900.0, 300.0, batch),
        torch.randn(features, generator=draw),
        torch.randn(shape, generator=draw),
    )


def test_the_published_flashhead_layout_gives_the_published_numbers(tmp_path):
    case, weights, arrays = load_case("flashhead_dit")
    (tmp_path / "config.json").write_text(json.dumps(case["config"]))
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    spec = dataclasses.replace(FLASHHEAD_LITE, num_layers=2, alpha=(1.0, 1.0))
    dit = load_flashhead_dit(tmp_path, spec, torch.float32)
    with torch.no_grad():
        velocity = dit(arrays["x"], arrays["t"], arrays["audio"], arrays["y"])
    torch.testing.assert_close(velocity, arrays["out"], atol=1e-4, rtol=0)


def test_patches_are_those_of_a_strided_convolution_and_go_back_to_their_cells():
    dit = small_dit(patch_side=2)
    latents, timestep, features, reference = inputs(dit)
    latents, reference = (x.repeat(1, 1, 1, 2, 3) for x in (latents, reference))
    latents = latents + torch.randn_like(latents)
    both = torch.cat((latents, reference), dim=1)
    convolved = F.conv3d(both, dit.patch_embedding.weight, dit.patch_embedding.bias, stride=(1, 2, 2))
    tokens = convolved.flatten(2).transpose(1, 2)
    torch.testing.assert_close(dit.patch_embedding(both), tokens, atol=1e-5, rtol=0)
    given = torch.randn(2, 3 * 2 * 3, 4 * dit.config.out_dim)
    dit.head.forward = lambda x, time: given
    velocity = dit(latents, timestep, features, reference)
    assert velocity.shape == latents.shape
    for frame, row, column, down, right in ((0, 0, 0, 0, 1), (1, 1, 2, 1, 0), (2, 0, 1, 1, 1)):
        first = (2 * down + right) * dit.config.out_dim
        expected = given[:, (frame * 2 + row) * 3 + column, first : first + dit.config.out_dim]
        assert torch.equal(velocity[:, :, frame, 2 * row + down, 2 * column + right], expected)


def naive_attention(query: Tensor, keys: Tensor, values: Tensor, num_heads: int) -> Tensor:
    """One query token over its keys and values, head by head."""
    heads = []
    for q, k, v in zip(query.chunk(num_heads), keys.chunk(num_heads, 1), values.chunk(num_heads, 1), strict=True):
        scores = torch.stack([q.dot(key) / math.sqrt(len(q)) for key in k])
        heads.append((scores.softmax(0)[:, None] * v).sum(0))
    return torch.cat(heads)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_hybrid_attention_equals_its_definition_token_by_token(alpha):
    batch, frames, cells, tokens, heads, dim = 2, 3, 4, 2, 3, 12
    query = torch.randn(batch, frames * cells, dim)
    key, value, full_key, full_value = torch.randn(4, batch, frames * tokens, dim)
    ours = hybrid_attention(query, key, value, full_key, full_value, alpha, heads, frames)
    for row in range(batch):
        for token in range(frames * cells):
            own = slice(token // cells * tokens, (token // cells + 1) * tokens)
            z = query[row, token].double()
            window = naive_attention(z, key[row, own].double(), value[row, own].double(), heads)
            full = naive_attention(z, full_key[row].double(), full_value[row].double(), heads)
            expected = alpha * window + (1 - alpha) * full
            torch.testing.assert_close(ours[row, token].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("alpha", "ignored"), [(1.0, "full"), (0.0, "window")])
def test_a_branch_of_weight_zero_is_not_computed(alpha, ignored):
    query, key, value = torch.randn(3, 1, 6, 8)
    nan = torch.full_like(key, math.nan)
    window = (nan, nan) if ignored == "window" else (key, value)
    full = (nan, nan) if ignored == "full" else (key, value)
    assert HybridAttention(alpha, 2)(query, *window, *full, 3).isfinite().all()


@pytest.mark.parametrize("branches", ["shared", "separate"])
def test_conditioner_and_denoiser_together_are_the_whole(branches):
    dit = small_dit(audio_branches=branches)
    latents, timestep, features, reference = inputs(dit)
    state = dit.conditioner(features)
    assert len(state) == len(dit.audio_state_names())
    assert {tensor.shape for tensor in state} == {(2, 9, 48)}
    whole = dit(latents, timestep, features, reference)
    assert whole.shape == latents.shape
    assert torch.equal(dit.denoise(latents, reference, timestep, state), whole)
    assert torch.equal(dit.denoiser(latents, reference, timestep, *state), whole)


def test_audio_state_names_leave_out_what_no_branch_uses():
    assert small_dit().audio_state_names() == (
        *("audio_key_00", "audio_value_00"),
        *("audio_key_01", "audio_value_01"),
        *("audio_key_02", "audio_value_02"),
    )
    assert small_dit(audio_branches="separate").audio_state_names() == (
        *("audio_full_key_00", "audio_full_value_00"),
        *("audio_key_01", "audio_value_01", "audio_full_key_01", "audio_full_value_01"),
        *("audio_key_02", "audio_value_02"),
    )


def test_conditioner_and_denoiser_add_no_tensors_to_a_checkpoint():
    dit = small_dit()
    before = set(dit.state_dict())
    assert dit.conditioner is not dit.denoiser
    assert set(dit.state_dict()) == before


def test_separate_branches_with_equal_weights_are_shared_branches():
    shared, separate = small_dit(), small_dit(audio_branches="separate")
    weights = shared.state_dict()
    for layer in range(3):
        prefix = f"blocks.{layer}.cross_attn."
        for own, twin in (("full_k", "k"), ("full_v", "v"), ("norm_full_k", "norm_k")):
            for kind in ("weight", "bias"):
                if f"{prefix}{twin}.{kind}" in weights:
                    weights[f"{prefix}{own}.{kind}"] = weights[f"{prefix}{twin}.{kind}"]
    separate.load_state_dict(weights)
    arguments = inputs(shared)
    torch.testing.assert_close(separate(*arguments), shared(*arguments), atol=1e-6, rtol=0)


def test_a_batch_of_two_equals_two_batches_of_one():
    dit = small_dit(audio_branches="separate")
    arguments = inputs(dit)
    both = dit(*arguments)
    for row in range(2):
        alone = dit(*(argument[row : row + 1] for argument in arguments))
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-5, rtol=0)


def test_one_timestep_serves_every_row_of_a_batch():
    dit = small_dit()
    latents, _, features, reference = inputs(dit)
    one = dit(latents, torch.tensor([500.0]), features, reference)
    torch.testing.assert_close(one, dit(latents, torch.full((2,), 500.0), features, reference), atol=1e-6, rtol=0)


def test_window_layers_hear_only_their_own_frames_and_full_layers_all():
    for alpha, hears_later_audio in ((1.0, False), (0.5, True)):
        dit = small_dit(num_layers=1, alpha=(alpha,))
        attend = dit.blocks[0].cross_attn
        features = inputs(dit, batch=1)[2]
        changed = features.clone()
        changed[:, -4:] += 1.0
        x = torch.randn(1, 12, 48)
        states = (dit.conditioner(audio) for audio in (features, changed))
        before, after = (attend(x, state, 3) for state in states)
        assert torch.equal(before[:, :8], after[:, :8]) != hears_later_audio
        assert not torch.equal(before[:, 8:], after[:, 8:])


@pytest.mark.parametrize(("compression", "window", "slots"), [(8, 5, 12), (4, 5, 8), (2, 3, 4), (8, 1, 8)])
def test_later_latents_take_every_feature_frame_once(compression, window, slots):
    config = {"temporal_compression": compression, "feature_window": window}
    projection = small_dit(**config).audio_proj
    assert projection.proj1_vf.in_features == slots * 2 * 6
    features = torch.zeros(1, compression + 1, window, 2, 6)
    taken = torch.zeros(compression, window)
    baseline = projection(features)
    for frame in range(compression):
        for offset in range(window):
            probe = features.clone()
            probe[0, 1 + frame, offset] = 1.0
            taken[frame, offset] = not torch.equal(projection(probe), baseline)
    centre = window // 2
    expected = torch.zeros(compression, window)
    expected[:, centre] = 1
    expected[0, :centre] = 1
    expected[-1, centre + 1 :] = 1
    assert torch.equal(taken, expected)


def test_a_single_latent_needs_only_the_first_frame():
    dit = small_dit()
    arguments = inputs(dit, latents=1)
    assert dit(*arguments).shape == (2, 4, 1, 2, 2)


def test_rotary_attention_scores_depend_on_relative_positions_alone():
    query, key = torch.randn(2, 1, 1, 128)
    cosine, sine = rotary_table(128, (4, 3, 3), torch.device("cpu"))

    def score(one: int, other: int) -> Tensor:
        rotated = (
            apply_rotary(tensor, cosine[i : i + 1], sine[i : i + 1], 1) for tensor, i in ((query, one), (key, other))
        )
        return torch.stack(tuple(rotated)).prod(0).sum()

    # Cells are numbered t * 9 + y * 3 + x: both pairs are one step apart in time and one in x.
    torch.testing.assert_close(score(0, 10), score(13, 23), atol=1e-4, rtol=0)
    assert (score(0, 10) - score(0, 1)).abs() > 1e-3


@pytest.mark.parametrize(("head_dim", "pairs"), [(128, (22, 21, 21)), (64, (12, 10, 10)), (16, (4, 2, 2))])
def test_rotary_pairs_are_split_over_time_height_and_width(head_dim, pairs):
    _, sine = rotary_table(head_dim, (2, 2, 2), torch.device("cpu"))
    turned = [int((sine[cell, 0] != 0).sum()) for cell in (4, 2, 1)]
    assert tuple(turned) == pairs


def test_timestep_sinusoid_has_cosines_first_and_falling_frequencies():
    sinusoid = timestep_sinusoid(torch.tensor([0.5]), 4)
    expected = [math.cos(0.5), math.cos(0.005), math.sin(0.5), math.sin(0.005)]
    torch.testing.assert_close(sinusoid, torch.tensor([expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("branches", ["shared", "separate"])
def test_every_parameter_that_takes_part_trains(branches):
    dit = small_dit(audio_branches=branches).train()
    dit(*inputs(dit)).square().sum().backward()
    idle = {"blocks.0.cross_attn.k", "blocks.0.cross_attn.v", "blocks.0.cross_attn.norm_k"}
    idle |= {f"blocks.2.cross_attn.{name}" for name in ("full_k", "full_v", "norm_full_k")}
    dead = {
        name.rsplit(".", 1)[0]
        for name, parameter in dit.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert dead == (idle if branches == "separate" else set())


def test_fp16_weights_give_finite_velocity_near_the_fp32_one():
    dit = small_dit()
    arguments = inputs(dit)
    expected = dit(*arguments)
    latents, timestep, features, reference = arguments
    half = dit.half()(latents.half(), timestep, features.half(), reference.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, atol=2e-2, rtol=0)


def test_the_network_is_traced_whole_by_torch_export():
    dit = small_dit(audio_branches="separate")
    latents, timestep, features, reference = inputs(dit, batch=1)
    state = dit.conditioner(features)
    conditioner = torch.export.export(dit.conditioner, (features,)).module()
    denoiser = torch.export.export(dit.denoiser, (latents, reference, timestep, *state)).module()
    velocity = denoiser(latents, reference, timestep, *conditioner(features))
    torch.testing.assert_close(velocity, dit(latents, timestep, features, reference), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_heads": 5}, "dim 48 must split into 5 heads"),
        ({"alpha": (1.0,)}, "alpha needs one value for each of the 3 layers"),
        ({"alpha": (0.0, 0.0, 1.5)}, r"alpha\[2\] must be a number from 0 to 1, not 1\.5"),
        ({"feature_window": 4}, "feature_window 4 must be odd"),
        ({"temporal_compression": 1}, "temporal_compression must be a whole number from 2"),
        ({"freq_dim": 3}, "freq_dim 3 must be even"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        small_dit(**changes)
