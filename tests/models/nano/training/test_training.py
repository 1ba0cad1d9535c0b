"""The training loop's parts: optimiser, clock, checkpoints, noise levels, roll-out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig
from rap_edge.models.dit import DiT
from rap_edge.models.nano.training.optim import Muon, orthogonalise
from rap_edge.models.nano.training.rollout import roll_out
from rap_edge.models.nano.training.stage import Clock, load_checkpoint, save_checkpoint
from rap_edge.models.nano.training.train_dit import sample_times
from rap_edge.models.nano.training.train_vae import losses
from rap_edge.models.nano_vae import NanoVAE, NanoVAEConfig
from rap_edge.models.networks import Networks, dit_config
from rap_edge.models.presets import NANO
from rap_edge.runtime.spec import linear_alpha


@pytest.mark.parametrize("shape", [(16, 64), (64, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.5


def test_muon_fits_a_linear_map() -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 16)
    optimiser = Muon(model, lr=0.05, adam_lr=0.05)
    x = torch.randn(256, 16)
    aim = x @ torch.randn(16, 16) * 0.25 + 1.0
    first = (model(x) - aim).square().mean().item()
    for step in range(150):
        (model(x) - aim).square().mean().backward()
        optimiser.step(1 - step / 150)
    assert (model(x) - aim).square().mean().item() < 0.01 * first


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def build() -> tuple[nn.Module, Muon]:
        torch.manual_seed(0)
        model = nn.Linear(16, 16)
        return model, Muon(model)

    def advance(model: nn.Module, optimiser: Muon) -> None:
        model(torch.ones(4, 16)).square().mean().backward()
        optimiser.step(1.0)

    straight, optimiser = build()
    advance(straight, optimiser)
    save_checkpoint(tmp_path, straight, optimiser, 12.5)
    advance(straight, optimiser)
    resumed, again = build()
    assert load_checkpoint(tmp_path, resumed, again) == 12.5
    advance(resumed, again)
    torch.testing.assert_close(resumed.weight, straight.weight)


def test_the_step_size_rises_and_then_falls_to_nothing() -> None:
    factors = [Clock(1000.0, elapsed=seconds, warmup=30).factor for seconds in (0, 200, 600, 1001)]
    assert factors[0] < 0.1
    assert factors[1] == 1.0
    assert 0.3 < factors[2] < 0.8
    assert factors[3] == pytest.approx(0.01)


def test_losses_weigh_the_mouth_box() -> None:
    target = torch.zeros(3, 3, 16, 16)
    output = target.clone()
    output[:, :, 8:, 8:] = 0.5
    mask = torch.zeros(1, 16, 16)
    mask[:, 8:, 8:] = 1
    terms = losses(output, target, mask, 1)
    assert float(terms["mouth"]) == pytest.approx(0.5)
    assert float(terms["all"]) == pytest.approx(0.125)
    assert float(terms["moved_mouth"]) == 0.0


def test_noise_levels_cover_the_whole_range() -> None:
    times = sample_times(4096, 1.0, torch.Generator().manual_seed(0))
    assert 0.0 <= float(times.min()) < 0.01
    assert 0.99 < float(times.max()) <= 1.0


def test_a_roll_out_gives_the_same_number_of_frames_for_every_chunk() -> None:
    spec = dataclasses.replace(
        NANO,
        image_size=64,
        latent_channels=4,
        temporal_compression=4,
        chunk_latents=4,
        feature_layers=1,
        feature_width=16,
        hidden_dim=24,
        num_heads=2,
        num_layers=2,
        alpha=linear_alpha(2),
        audio_window_seconds=1.0,
    ).validate()
    audio = AudioEncoderConfig(
        conv_dim=(8,) * 7,
        feat_extract_norm="layer",
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        num_conv_pos_embeddings=3,
        num_conv_pos_embedding_groups=2,
    )
    vae = NanoVAEConfig(
        latent_channels=4,
        temporal_compression=4,
        encoder_widths=(8, 8, 8),
        squeeze_width=4,
        latent_width=8,
        phase_width=8,
        decoder_widths=(8, 8, 8, 8),
    )
    torch.manual_seed(0)
    dit = DiT(dit_config(spec, ffn_dim=32, audio_hidden=16)).eval()
    networks = Networks(spec, dit, NanoVAE(vae).eval(), AudioEncoder(audio).eval())
    rng = np.random.default_rng(0)
    portraits = rng.integers(0, 255, (2, 64, 64, 3), np.uint8)
    speech = rng.normal(0, 0.1, (2, 10_000)).astype(np.float32)
    videos = roll_out(networks, portraits, speech, chunks=2)
    assert videos.shape == (2, 2 * spec.new_frames, 64, 64, 3)
