"""A model of one's own: written without rap-edge's networks, exported by `rap-export --model examples.own_model:load`.

A small transformer in RAP's manner, with names and habits of its own: einsum attention, rotary positions by halves, one
product for queries, keys and values. Its weights are drawn; put yours in where `load` says so. docs/own_model.md tells
what every module takes and gives.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.export import OwnModel
from rap_edge.runtime import ModelSpec

SPEC = ModelSpec(
    name="mine",
    image_size=(64, 64),
    fps=25,
    latent_channels=4,
    spatial_compression=32,
    temporal_compression=8,
    chunk_latents=4,
    carried_latents=2,
    carry="noisy",
    solver="euler",
    timesteps=(1000.0, 500.0, 0.0),
    shift=1.0,
    guidance_scale=1.0,
    color_match=0.0,
    sample_rate=16000,
    audio_window_seconds=1.0,
    feature_window=5,
    feature_layers=2,
    feature_width=8,
    audio_tokens=2,
    hidden_dim=24,
    num_heads=2,
    num_layers=2,
    alpha=(0.25, 0.75),
    audio_branches="shared",
    idle_replays=0,
)


def heads_of(x: Tensor) -> Tensor:
    """[B, N, heads * d] -> [B, N, heads, d]."""
    return x.unflatten(-1, (SPEC.num_heads, -1))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over the last but two axes of [..., tokens, heads, d]."""
    scores = torch.einsum("...nhd,...mhd->...hnm", query, key) * query.shape[-1] ** -0.5
    return torch.einsum("...hnm,...mhd->...nhd", scores.softmax(-1), value)


class Rotary(nn.Module):
    """Positions as angles. A complex table does not export: its cosine and sine do."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        frequencies = 1e4 ** -(torch.arange(width // 2) / (width // 2))
        angles = torch.outer(torch.arange(tokens), frequencies)[:, None]
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate the pairs of channels (i, i + d / 2) of [B, N, heads, d]."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * self.cosine - second * self.sine, second * self.cosine + first * self.sine), dim=-1)


class Layer(nn.Module):
    def __init__(self, dim: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.scale_shift = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm_sound = nn.LayerNorm(dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def hear(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """RAP's hybrid attention: every frame its own sound, and all of the sound."""
        query, key, value = heads_of(self.query(x)), heads_of(key), heads_of(value)
        by_frame = (tensor.unflatten(1, (SPEC.chunk_latents, -1)) for tensor in (query, key, value))
        window = attend(*by_frame).flatten(1, 2)
        return torch.lerp(attend(query, key, value), window, self.weight).flatten(2)

    def forward(self, x: Tensor, time: Tensor, rotary: Rotary, key: Tensor, value: Tensor) -> Tensor:
        scale, shift = self.scale_shift(time).unsqueeze(1).chunk(2, dim=-1)
        q, k, v = (heads_of(part) for part in self.qkv(self.norm(x) * (1 + scale) + shift).chunk(3, dim=-1))
        x = x + self.out(attend(rotary(q), rotary(k), v).flatten(2))
        x = x + self.hear(self.norm_sound(x), key, value)
        return x + self.mlp(self.norm_mlp(x))


class Painter(nn.Module):
    """The DiT: velocity of the latents, from the portrait and from what is heard."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        dim, cells = spec.hidden_dim, math.prod(spec.latent_size)
        self.tokens = spec.audio_tokens
        self.inlet = nn.Conv3d(2 * spec.latent_channels, dim, 1)
        self.time = nn.Sequential(nn.Linear(2, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        self.sound = nn.Linear(spec.feature_window * spec.feature_layers * spec.feature_width, spec.audio_tokens * dim)
        self.layers = nn.ModuleList(Layer(dim, weight) for weight in spec.alpha)
        self.rotary = Rotary(spec.chunk_latents * cells, spec.head_dim)
        self.outlet = nn.Linear(dim, spec.latent_channels)

    def condition(self, audio_features: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of the sound, layer by layer: they are the same in all steps, and computed once."""
        every_latent = audio_features[:, :: SPEC.temporal_compression].flatten(2)
        tokens = self.sound(every_latent).unflatten(-1, (self.tokens, -1)).flatten(1, 2)
        return tuple(part for layer in self.layers for part in layer.key_value(tokens).chunk(2, dim=-1))

    def forward(self, latents: Tensor, reference: Tensor, timestep: Tensor, *condition: Tensor) -> Tensor:
        x = self.inlet(torch.cat((latents, reference), dim=1))
        grid, x = x.shape[2:], x.flatten(2).transpose(1, 2)
        angle = timestep / 1000.0 * torch.pi / 2
        time = self.time(torch.stack((angle.cos(), angle.sin()), dim=-1))
        for layer, key, value in zip(self.layers, condition[::2], condition[1::2], strict=True):
            x = layer(x, time, self.rotary, key, value)
        return self.outlet(x).transpose(1, 2).unflatten(2, grid)


class Shrink(nn.Module):
    """The VAE's encoder: the first frame is a latent, and every eight of the others."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mix = nn.Conv3d(
            3, spec.latent_channels, (spec.temporal_compression, 1, 1), (spec.temporal_compression, 1, 1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        size = self.spec.spatial_compression
        cells = F.avg_pool3d(frames, (1, size, size))
        first = cells[:, :, :1].expand(-1, -1, self.spec.temporal_compression - 1, -1, -1)
        return self.mix(torch.cat((first, cells), dim=2))


class Grow(nn.Module):
    """The VAE's decoder."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.mix = nn.Conv3d(spec.latent_channels, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        size = (self.spec.temporal_compression, self.spec.spatial_compression, self.spec.spatial_compression)
        frames = F.interpolate(self.mix(latents), scale_factor=tuple(map(float, size)), mode="nearest")
        return frames[:, :, self.spec.temporal_compression - 1 :].tanh()


class Ear(nn.Module):
    """The audio encoder: one feature for each frame of video."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.layers, self.width = spec.feature_layers, spec.feature_width
        self.listen = nn.Conv1d(
            1, spec.feature_layers * spec.feature_width, spec.samples_per_frame, spec.samples_per_frame
        )

    def forward(self, waveform: Tensor) -> Tensor:
        return (
            self.listen(waveform.unsqueeze(1))
            .squeeze(0)
            .transpose(0, 1)
            .unflatten(-1, (self.layers, self.width))
            .tanh()
        )


def load() -> OwnModel:
    """What `rap-export --model` calls."""
    torch.manual_seed(0)  # here yours would read its weights: module.load_state_dict(safetensors.torch.load_file(file))
    return OwnModel(
        spec=SPEC, dit=Painter(SPEC), vae_encoder=Shrink(SPEC), vae_decoder=Grow(SPEC), audio_encoder=Ear(SPEC)
    )
