"""The nano autoencoder: shapes, the static first latent, causality, statistics."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rap_edge.models.nano_vae import NanoVAE, NanoVAEConfig
from rap_edge.runtime.errors import CheckpointError

TINY = NanoVAEConfig(
    latent_channels=4,
    temporal_compression=4,
    encoder_widths=(8, 8, 8),
    squeeze_width=4,
    latent_width=8,
    phase_width=8,
    decoder_widths=(8, 8, 8, 8),
)


@pytest.fixture
def vae() -> NanoVAE:
    torch.manual_seed(0)
    return NanoVAE(TINY).eval()


@torch.no_grad()
def test_first_frame_is_one_latent_and_every_group_another(vae: NanoVAE) -> None:
    latents = vae.encode(torch.rand(2, 3, 1 + 2 * 4, 64, 96))
    assert latents.shape == (2, 4, 3, 2, 3)
    assert vae.decode(latents).shape == (2, 3, 9, 64, 96)


@torch.no_grad()
def test_a_repeated_picture_has_equal_latents(vae: NanoVAE) -> None:
    latents = vae.encode(torch.rand(1, 3, 1, 64, 64).expand(-1, -1, 9, -1, -1))
    torch.testing.assert_close(latents[:, :, 1], latents[:, :, 0])
    torch.testing.assert_close(latents[:, :, 2], latents[:, :, 0])


@torch.no_grad()
def test_a_latent_depends_on_its_own_frames_alone(vae: NanoVAE) -> None:
    frames = torch.rand(1, 3, 9, 64, 64)
    changed = frames.clone()
    changed[:, :, 5:] = 0
    first, second = vae.encode(frames), vae.encode(changed)
    torch.testing.assert_close(first[:, :, :2], second[:, :, :2])
    assert not torch.allclose(first[:, :, 2], second[:, :, 2])


@torch.no_grad()
def test_chunks_that_share_two_latents_decode_to_the_same_new_frames(vae: NanoVAE) -> None:
    latents = torch.randn(1, 4, 6, 2, 2)
    whole = vae.decode(latents)
    tail = vae.decode(latents[:, :, 2:])
    torch.testing.assert_close(tail[:, :, -8:], whole[:, :, -8:])


@torch.no_grad()
def test_frames_of_one_latent_differ(vae: NanoVAE) -> None:
    frames = vae.decode(torch.randn(1, 4, 3, 2, 2))[0, :, -4:]
    assert (frames[:, 1:] - frames[:, :-1]).abs().mean() > 1e-3


@torch.no_grad()
def test_statistics_normalise_latents_and_leave_pictures_alone(vae: NanoVAE) -> None:
    config = dataclasses.replace(TINY, latents_mean=(0.5, -1.0, 0.0, 2.0), latents_std=(2.0, 1.0, 0.5, 3.0))
    scaled = NanoVAE(config).eval()
    scaled.load_state_dict(vae.state_dict())
    frames = torch.rand(1, 3, 5, 64, 64)
    mean, std = (torch.tensor(v).view(1, 4, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    torch.testing.assert_close(scaled.encode(frames), (vae.encode(frames) - mean) / std)
    torch.testing.assert_close(scaled.decode(scaled.encode(frames)), vae.decode(vae.encode(frames)))


def test_statistics_of_another_width_are_refused() -> None:
    with pytest.raises(CheckpointError, match="latents_mean"):
        NanoVAE(dataclasses.replace(TINY, latents_mean=(0.0,), latents_std=(1.0,)))
