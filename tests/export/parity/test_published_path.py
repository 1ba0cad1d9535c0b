"""Free-running, with its state fed back, the loop gives what FlashHead's published path gives on the same noise."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.bundles.flashhead_path import published_chunks
from helpers.bundles.small import LTX, SMALL_CLEAN, SMALL_PRO, WAN, drawn, small_networks

from rap_edge.export.capture.torch_engine import torch_engines
from rap_edge.export.parity.compare import ROLLOUT_SEED, compare, roll_out
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.models.vaes.wan import WanVaeConfig
from rap_edge.runtime.loop.noise import normal
from rap_edge.runtime.loop.pixels import to_frames, to_pixels
from rap_edge.runtime.spec import ModelSpec

CHUNKS = 9
LITE = dataclasses.replace(SMALL_CLEAN, timesteps=(1000.0, 750.0, 500.0, 250.0, 0.0), shift=5.0)
PRO = dataclasses.replace(
    SMALL_PRO, timesteps=(1000.0, 750.0, 500.0, 250.0, 0.0), shift=5.0, chunk_latents=9, audio_window_seconds=1.6
)


@pytest.mark.parametrize(("spec", "vae"), [(LITE, LTX), (PRO, WAN)], ids=["lite", "pro"])
@torch.no_grad()
def test_nine_chunks_are_those_of_the_published_path(spec: ModelSpec, vae: LtxVaeConfig | WanVaeConfig) -> None:
    networks, inputs = small_networks(spec, vae), drawn(spec)
    # The decoder of fresh weights shall reach beyond black and white.
    out = networks.vae.decoder.conv_out
    getattr(out, "conv", out).weight.mul_(2.0)
    silence = np.zeros(spec.window_samples, np.float32)
    sound = np.concatenate([silence, inputs.waveform(CHUNKS * spec.chunk_samples)])
    ends = [len(silence) + (chunk + 1) * spec.chunk_samples for chunk in range(CHUNKS)]
    windows = [torch.from_numpy(sound[end - spec.window_samples : end]) for end in ends]
    expected = published_chunks(
        networks,
        torch.from_numpy(to_pixels(inputs.portrait)),
        windows,
        lambda chunk, draw: torch.from_numpy(normal(spec.latent_shape, ROLLOUT_SEED, chunk, draw)),
    )
    got = roll_out(spec, torch_engines(networks), inputs, CHUNKS)
    figures = [compare(to_frames(video.numpy()), frames).psnr for video, frames in zip(expected, got, strict=True)]
    assert min(figures) >= 60.0, figures
    assert len(figures) == CHUNKS
