"""What the DiT is trained on: latents of every window of a clip and audio features of every chunk end."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...audio_encoder import AudioEncoder
from ...memory import channels_last
from ...nano_vae import NanoVAE
from .train_audio import WINDOW_FRAMES, encode_channels_last, window


def raw_groups(vae: NanoVAE, video: np.ndarray) -> tuple[Tensor, Tensor]:
    """Raw latents of a clip uint8 [T, H, W, 3] under bf16: groups beginning at every frame, and static groups.

    Returns:
        [T - c + 1, C, h, w] and [T, C, h, w], fp32.
    """
    c = vae.config.temporal_compression
    frames = torch.from_numpy(np.ascontiguousarray(video)).permute(0, 3, 1, 2).bfloat16() / 127.5 - 1.0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = vae.encoder.frame(torch.nn.functional.pixel_unshuffle(frames, vae.config.patch))
        moving = torch.stack([features[t : t + c].flatten(0, 1) for t in range(len(features) - c + 1)])
        still = features.repeat(1, c, 1, 1)
        moments = vae.encoder.group(torch.cat((moving, still)).contiguous(memory_format=torch.channels_last))
    means = moments[:, : vae.config.latent_channels].float()
    return means[: len(moving)], means[len(moving) :]


def latent_statistics(vae: NanoVAE, videos: np.ndarray, count: int) -> NanoVAE:
    """The same network with the per-channel mean and deviation of `count` clips' raw latents in its config."""
    samples = torch.cat([raw_groups(vae, np.asarray(videos[i]))[0] for i in range(min(count, len(videos)))])
    mean = samples.mean((0, 2, 3))
    std = samples.std((0, 2, 3)).clamp_min(1e-3)
    config = dataclasses.replace(
        vae.config,
        latents_mean=tuple(round(v, 6) for v in mean.tolist()),
        latents_std=tuple(round(v, 6) for v in std.tolist()),
    )
    measured = NanoVAE(config)
    measured.load_state_dict(vae.state_dict())
    result: NanoVAE = channels_last(measured).eval()
    return result


def cache_latents(vae: NanoVAE, folder: Path, out: Path) -> None:
    """Write `moving.npy` [N, T-c+1, C, h, w] and `still.npy` [N, T, C, h, w] (fp16, normalised) to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    videos = np.load(folder / "video.npy", mmap_mode="r")
    count, length, height = videos.shape[:3]
    c, side = vae.config.temporal_compression, height // vae.config.spatial_compression
    shape = (vae.config.latent_channels, side, side)
    moving = np.lib.format.open_memmap(out / "moving.npy", "w+", np.float16, (count, length - c + 1, *shape))
    still = np.lib.format.open_memmap(out / "still.npy", "w+", np.float16, (count, length, *shape))
    for index in range(count):
        for target, raw in zip((moving, still), raw_groups(vae, np.asarray(videos[index])), strict=True):
            target[index] = ((raw - vae.latents_mean) / vae.latents_std).numpy().astype(np.float16)
        if index % 100 == 0:
            print(f"latents {index}/{count}", flush=True)


@torch.no_grad()
def cache_features(encoder: AudioEncoder, folder: Path, out: Path, first_end: int) -> None:
    """Write `features.npy` [N, T - first_end + 1, WINDOW_FRAMES, layers, width] (fp16): one row per chunk end.

    Row i holds the features of the rolling window that ends where frame `first_end + i` begins.
    """
    out.mkdir(parents=True, exist_ok=True)
    waveforms = np.load(folder / "waveform.npy")
    length = np.load(folder / "motion.npy", mmap_mode="r").shape[1]
    ends = range(first_end, length + 1)
    shape = (encoder.config.num_hidden_layers, encoder.config.hidden_size)
    features = np.lib.format.open_memmap(
        out / "features.npy", "w+", np.float16, (len(waveforms), len(ends), WINDOW_FRAMES, *shape)
    )
    for index, waveform in enumerate(waveforms):
        waves = torch.from_numpy(np.stack([window(waveform, end) for end in ends]))
        with torch.autocast("cpu", torch.bfloat16):
            features[index] = encode_channels_last(encoder, waves).float().numpy().astype(np.float16)
        if index % 100 == 0:
            print(f"features {index}/{len(waveforms)}", flush=True)
