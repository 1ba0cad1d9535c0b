"""The chunk loop in PyTorch: static-dynamic inference with noisy carry, for training's checks.

Source: RAP (arXiv 2508.05115). The first n latents of a chunk are, at every noise level, the last n latents of the
previous chunk at that level; chunk 0 begins with the portrait's static latent, noised to the level. Every chunk gives
its last (k - n) * compression frames, the first one after a lead-in of silence.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rap_edge.runtime.spec import ModelSpec

from ...dit import DiT
from ...nano_vae import NanoVAE
from ...networks import Networks


def feature_windows(features: Tensor, spec: ModelSpec) -> Tensor:
    """Rolling features [B, frames, layers, width] -> [B, chunk_frames, window, layers, width] of the last frames."""
    rolling = features.shape[1]
    reach = spec.feature_window // 2
    shown = torch.arange(rolling - spec.chunk_frames, rolling)
    taps = (shown[:, None] + torch.arange(-reach, reach + 1)).clamp(0, rolling - 1)
    return features[:, taps]


def sample_chunk(
    dit: DiT, spec: ModelSpec, windows: Tensor, reference: Tensor, carried: list[Tensor], generator: torch.Generator
) -> list[Tensor]:
    """One chunk's latents [B, C, k, h, w] at every level of the schedule, the last one clean.

    Args:
        windows: audio features of the chunk.
        reference: portrait latents [B, C, k, h, w].
        carried: per level, the latents [B, C, n', h, w] that the chunk begins with (n' is 1 for chunk 0).
    """
    levels = [t / 1000.0 for t in spec.schedule()]
    state = dit.conditioner(windows)
    silent = dit.conditioner(torch.zeros_like(windows)) if spec.guided else ()
    x = torch.randn(reference.shape, generator=generator)
    x[:, :, : carried[0].shape[2]] = carried[0]
    path = [x]
    for index, (level, lower) in enumerate(pairwise(levels)):
        timestep = torch.tensor([1000.0 * level])
        velocity = dit.denoise(x, reference, timestep, state)
        if spec.guided:
            plain = dit.denoise(x, reference, timestep, silent)
            velocity = plain + spec.guidance_scale * (velocity - plain)
        x = x + (lower - level) * velocity
        x[:, :, : carried[0].shape[2]] = carried[index + 1]
        path.append(x.clone())
    return path


@torch.no_grad()
def roll_out(
    networks: Networks, portraits: np.ndarray, waveforms: np.ndarray, chunks: int, seed: int = 0
) -> np.ndarray:
    """Videos of a batch of portraits and speeches.

    Args:
        networks: nano's three networks.
        portraits: uint8 [B, H, W, 3].
        waveforms: float32 [B, samples], zero-padded at the end if short.
        chunks: chunks to generate.

    Returns:
        uint8 [B, chunks * new_frames, H, W, 3]; frame i covers audio [i / fps, (i + 1) / fps).
    """
    spec, dit, encoder, vae = networks.spec, networks.dit, networks.audio_encoder, networks.vae
    assert isinstance(vae, NanoVAE)
    generator = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(portraits).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    static = vae.encode(images.unsqueeze(2))
    reference = static.expand(-1, -1, spec.chunk_latents, -1, -1)
    levels = [t / 1000.0 for t in spec.schedule()]
    noise = torch.randn(static.shape, generator=generator)
    carried = [(1 - level) * static + level * noise for level in levels]
    past = np.zeros((len(waveforms), spec.window_samples), np.float32)
    need = chunks * spec.chunk_samples
    padded = np.zeros((len(waveforms), need), np.float32)
    padded[:, : waveforms.shape[1]] = waveforms[:, :need]
    stream = np.concatenate((past, padded), axis=1)
    videos = []
    for chunk in range(chunks):
        stop = spec.window_samples + (chunk + 1) * spec.chunk_samples
        rolling = torch.from_numpy(stream[:, stop - spec.window_samples : stop].copy())
        windows = feature_windows(encoder.encode(rolling), spec)
        path = sample_chunk(dit, spec, windows, reference, carried, generator)
        carried = [x[:, :, -spec.carried_latents :].clone() for x in path]
        frames = vae.decode(path[-1])[:, :, -spec.new_frames :]
        videos.append(((frames.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).numpy())
    return np.concatenate(videos, axis=1)
