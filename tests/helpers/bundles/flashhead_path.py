"""The path of SoulX-FlashHead's published inference code from sound to frames, in PyTorch and in floats throughout.

Written from its order of operations: carried latents over noise, denoise, decode, match colours, encode the last
frames again, and clip and round for the file alone. Noise and networks are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from rap_edge.models.networks import Networks
from rap_edge.runtime.loop.interface import frame_windows

_WHITE = torch.tensor([0.95047, 1.0, 1.08883])
_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_RGB = torch.tensor(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


def published_chunks(
    networks: Networks, portrait: Tensor, waveforms: list[Tensor], noise: Callable[[int, int], Tensor]
) -> Iterator[Tensor]:
    """The new frames of chunk after chunk, float32 [T, H, W, 3] in -1..1.

    Args:
        networks: in fp32.
        portrait: float32 [H, W, 3] in -1..1.
        waveforms: every chunk's window of sound, float32 [window_samples].
        noise: standard normal numbers [C, k, h, w] of a chunk and a draw.
    """
    spec, dit, vae = networks.spec, networks.dit, networks.vae
    picture = portrait.permute(2, 0, 1)[None, :, None]
    reference = vae.encode(picture.expand(-1, -1, spec.chunk_frames, -1, -1))
    carried = reference[0, :, :1]
    windows = torch.from_numpy(frame_windows(spec))
    times = [1000.0 * spec.shift * t / (1000.0 + (spec.shift - 1.0) * t) for t in spec.timesteps]
    for chunk, waveform in enumerate(waveforms):
        states = dit.conditioner(networks.audio_encoder(waveform[None])[windows][None])
        latents = noise(chunk, 0)
        for step, (t, following) in enumerate(pairwise(times)):
            latents[:, : carried.shape[1]] = carried
            velocity = dit.denoiser(latents[None], reference, torch.tensor([t]), *states)[0]
            clean = latents - velocity * (t / 1000.0)
            share = following / 1000.0
            latents = (1.0 - share) * clean + share * noise(chunk, step + 1)
        latents[:, : carried.shape[1]] = carried
        video = _match(vae.decode(latents[None]), picture, spec.color_match)
        carried = vae.encode(video[:, :, -spec.carried_frames :])[0]
        yield video[0, :, -spec.new_frames :].permute(1, 2, 3, 0)


def _match(video: Tensor, picture: Tensor, strength: float) -> Tensor:
    light, wanted = ((item.movedim(1, -1) + 1.0) / 2.0 for item in (video, picture))
    lab, model = _lab(light), _lab(wanted)
    mean, deviation = (lab.mean((2, 3), keepdim=True), lab.std((2, 3), keepdim=True, unbiased=False))
    target = model.std((2, 3), keepdim=True, unbiased=False)
    matched = (lab - mean) * (target / deviation) + model.mean((2, 3), keepdim=True)
    return ((1.0 - strength) * light + strength * _light(matched)).movedim(-1, 1) * 2.0 - 1.0


def _lab(light: Tensor) -> Tensor:
    linear = torch.where(light > 0.04045, ((light + 0.055) / 1.055) ** 2.4, light / 12.92)
    xyz = (linear @ _TO_XYZ.T / _WHITE).clamp(1e-8, 1.0)
    f = torch.where(xyz > 0.008856, xyz ** (1 / 3), (903.3 * xyz + 16.0) / 116.0)
    x, y, z = f.unbind(-1)
    return torch.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), -1)


def _light(lab: Tensor) -> Tensor:
    y = (lab[..., 0] + 16.0) / 116.0
    f = torch.stack((lab[..., 1] / 500.0 + y, y, y - lab[..., 2] / 200.0), -1)
    xyz = torch.where(f**3 > 0.008856, f**3, (116.0 * f - 16.0) / 903.3) * _WHITE
    linear = xyz @ _TO_RGB.T
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear).clamp(0.0, 1.0)
