"""The diffusion transformer of RAP and FlashHead: velocity of a chunk of latents, driven by audio features.

Sources: SoulX-FlashHead (arXiv 2602.07449; parameter names and the audio projection are its published layout),
Wan2.1 (block, rotary positions, timestep embedding), RAP (arXiv 2508.05115; hybrid audio attention).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole

from .attention import AudioAttention, SelfAttention, rotary_table
from .config import check_config, check_rules
from .fresh import draw_weights
from .norms import LayerNorm32


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of a DiT.

    Attributes:
        dim: width of the network.
        in_dim: channels of latents and reference together.
        out_dim: channels of the velocity.
        ffn_dim: width of the feed-forward layer.
        freq_dim: width of the timestep sinusoid.
        num_heads: attention heads.
        num_layers: blocks.
        alpha: per layer, the weight of the window branch in hybrid attention.
        eps: epsilon of every normalisation.
        audio_layers: hidden states per feature frame.
        audio_width: width of one hidden state.
        feature_window: consecutive feature frames around each video frame (odd).
        temporal_compression: frames per latent after the first (at least 2).
        audio_tokens: audio tokens per latent frame.
        audio_hidden: width of the audio projection.
        audio_branches: whether the hybrid attention's branches share keys and values.
        patch_side: latent cells along height and width that make a token.
    """

    dim: Annotated[int, Whole(2, 32768)]
    in_dim: Annotated[int, Whole(1, 8192)]
    out_dim: Annotated[int, Whole(1, 4096)]
    ffn_dim: Annotated[int, Whole(1, 262144)]
    freq_dim: Annotated[int, Whole(2, 8192)]
    num_heads: Annotated[int, Whole(1, 1024)]
    num_layers: Annotated[int, Whole(1, 1024)]
    alpha: Annotated[tuple[Annotated[float, Real(0.0, 1.0)], ...], Count(1024)]
    eps: Annotated[float, Real(0.0, 1.0)] = 1e-6
    audio_layers: Annotated[int, Whole(1, 256)] = 12
    audio_width: Annotated[int, Whole(1, 16384)] = 768
    feature_window: Annotated[int, Whole(1, 255)] = 5
    temporal_compression: Annotated[int, Whole(2, 64)] = 8
    audio_tokens: Annotated[int, Whole(1, 4096)] = 32
    audio_hidden: Annotated[int, Whole(1, 32768)] = 512
    audio_branches: Literal["shared", "separate"] = "shared"
    patch_side: Annotated[int, Whole(1, 64)] = 1

    def validate(self) -> DiTConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "DiT")
        check_rules(
            "DiT",
            (
                self.dim % (2 * self.num_heads) == 0,
                f"dim {self.dim} must split into {self.num_heads} heads of even width",
            ),
            (self.freq_dim % 2 == 0, f"freq_dim {self.freq_dim} must be even"),
            (self.feature_window % 2 == 1, f"feature_window {self.feature_window} must be odd"),
            (
                len(self.alpha) == self.num_layers,
                f"alpha needs one value for each of the {self.num_layers} layers",
            ),
        )
        return self


class PatchEmbedding(nn.Conv3d):
    """Projection of each patch of 1 x p x p latent cells: a convolution, computed as one matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, k, h, w] -> tokens [B, k * h/p * w/p, dim]."""
        size = self.kernel_size[1]
        if size == 1:
            return F.linear(x.flatten(2).transpose(1, 2), self.weight.flatten(1), self.bias)
        patches = x.unflatten(4, (-1, size)).unflatten(3, (-1, size)).permute(0, 2, 3, 5, 1, 4, 6)
        return F.linear(patches.flatten(4).flatten(1, 3), self.weight.flatten(1), self.bias)


class AudioProjection(nn.Module):
    """Audio tokens of each latent frame from windowed audio features.

    The first latent is one video frame and takes that frame's whole window (`proj1`). Every later latent is
    `temporal_compression` frames and takes each feature frame once: the first window's first half with the
    centre, the centres between, and the last window's second half (`proj1_vf`); 12 slots for 8 frames and a
    window of 5. Source: FlashHead, generalised to other windows and compressions.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.centre = config.feature_window // 2
        self.compression = config.temporal_compression
        self.tokens = config.audio_tokens
        slots = (self.centre + 1) + (self.compression - 2) + (config.feature_window - self.centre)
        width = config.audio_layers * config.audio_width
        self.proj1 = nn.Linear(config.feature_window * width, config.audio_hidden)
        self.proj1_vf = nn.Linear(slots * width, config.audio_hidden)
        self.proj2 = nn.Linear(config.audio_hidden, config.audio_hidden)
        self.proj3 = nn.Linear(config.audio_hidden, config.audio_tokens * config.dim)
        self.norm = LayerNorm32(config.dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, temporal_compression * (k - 1) + 1, window, layers, width] -> [B, k * tokens, dim]."""
        hidden = self.proj1(features[:, :1].flatten(2))
        if features.shape[1] > 1:
            groups = features[:, 1:].unflatten(1, (-1, self.compression))
            slots = (
                groups[:, :, 0, : self.centre + 1],
                groups[:, :, 1:-1, self.centre],
                groups[:, :, -1, self.centre :],
            )
            hidden = torch.cat((hidden, self.proj1_vf(torch.cat(slots, dim=2).flatten(2))), dim=1)
        hidden = F.relu(self.proj2(F.relu(hidden)))
        tokens = self.proj3(hidden).unflatten(-1, (self.tokens, -1)).flatten(1, 2)
        result: Tensor = self.norm(tokens)
        return result


class Block(nn.Module):
    """Self-attention and feed-forward under adaLN modulation, with audio cross-attention between them."""

    def __init__(self, config: DiTConfig, alpha: float) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 6, config.dim))
        self.self_attn = SelfAttention(config.dim, config.num_heads, config.eps)
        self.cross_attn = AudioAttention(
            config.dim, config.num_heads, config.eps, alpha, separate=config.audio_branches == "separate"
        )
        self.norm1 = LayerNorm32(config.dim, eps=config.eps, elementwise_affine=False)
        self.norm2 = LayerNorm32(config.dim, eps=config.eps, elementwise_affine=False)
        self.norm3 = LayerNorm32(config.dim, eps=config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )

    def forward(
        self, x: Tensor, modulation: Tensor, state: tuple[Tensor, ...], rotary: tuple[Tensor, Tensor], frames: int
    ) -> Tensor:
        """Tokens [B, N, dim], timestep modulation [B, 6, dim] and the layer's audio state -> tokens [B, N, dim]."""
        chunks = (self.modulation + modulation).chunk(6, dim=1)
        shift1, scale1, gate1, shift2, scale2, gate2 = chunks
        x = x + gate1 * self.self_attn(self.norm1(x) * (1 + scale1) + shift1, rotary)
        x = x + self.cross_attn(self.norm3(x), state, frames)
        result: Tensor = x + gate2 * self.ffn(self.norm2(x) * (1 + scale2) + shift2)
        return result


class Head(nn.Module):
    """Modulated normalisation and projection of tokens to the velocity's channels, of every cell of a patch."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self.norm = LayerNorm32(config.dim, eps=config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, config.out_dim * config.patch_side**2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Tokens [B, N, dim] and timestep embedding [B, dim] -> [B, N, p * p * out_dim]."""
        shift, scale = (self.modulation + time.unsqueeze(1)).chunk(2, dim=1)
        result: Tensor = self.head(self.norm(x) * (1 + scale) + shift)
        return result


def timestep_sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of `timestep` [B] at `width / 2` frequencies from 1 down to 1e-4: fp32 [B, width]."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=timestep.device) * (-math.log(1e4) / half))
    angles = timestep.float().unsqueeze(1) * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1)


class DiT(nn.Module):
    """Velocity of a chunk of latents at one noise level.

    `dit(...)` is `dit.denoise(..., dit.conditioner(...))`. The audio's keys and values do not depend on the noise
    level, so a sampler calls `conditioner` once per chunk and `denoise` once per step.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config.validate()
        dim = config.dim
        patch = (1, config.patch_side, config.patch_side)
        self.patch_embedding = PatchEmbedding(config.in_dim, dim, patch, patch)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config, alpha) for alpha in config.alpha)
        self.head = Head(config)
        self.audio_proj = AudioProjection(config)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: uniform of deviation 1/sqrt(fan in), modulation 0.02, gains one, biases zero.

        The head's deviation is 0.02 so that training starts near zero velocity.
        """
        draw_weights(self, generator, lambda name: name.endswith("modulation") or name == "head.head.weight")

    @property
    def audio_layers(self) -> tuple[AudioAttention, ...]:
        """The audio attention of every block."""
        return tuple(cast("Block", block).cross_attn for block in self.blocks)

    @property
    def conditioner(self) -> Conditioner:
        """The module of `audio_features` -> audio state; it shares this network's parameters."""
        return Conditioner(self)

    @property
    def denoiser(self) -> Denoiser:
        """`denoise` as a module that takes the audio state as separate arguments; shares the parameters."""
        return Denoiser(self)

    def audio_state_names(self) -> tuple[str, ...]:
        """Name of every tensor of the audio state, in order: audio_key_00, audio_value_00, audio_key_01, ...

        With separate branches a layer also has audio_full_key_.. and audio_full_value_..; the tensors of a branch
        of weight 0 are left out.
        """
        return tuple(
            f"audio_{kind}_{index:02d}" for index, layer in enumerate(self.audio_layers) for kind in layer.state_names()
        )

    def denoise(self, latents: Tensor, reference: Tensor, timestep: Tensor, audio_state: Sequence[Tensor]) -> Tensor:
        """Velocity of `latents` at `timestep`.

        Args:
            latents: noisy latents [B, C, k, h, w].
            reference: the portrait's latents [B, C, k, h, w].
            timestep: noise level [B] or [1] in 0..1000.
            audio_state: what `conditioner` gave, in `audio_state_names()` order, each [B, k * tokens, dim].

        Returns:
            [B, out_dim, k, h, w] in the dtype of `latents`.
        """
        size = self.config.patch_side
        grid = (latents.shape[2], latents.shape[3] // size, latents.shape[4] // size)
        rotary = rotary_table(self.config.dim // self.config.num_heads, grid, latents.device)
        time = self.time_embedding(timestep_sinusoid(timestep, self.config.freq_dim).to(latents.dtype))
        modulation = self.time_projection(time).unflatten(1, (6, -1))
        x = self.patch_embedding(torch.cat((latents, reference), dim=1))
        used = 0
        for block, layer in zip(self.blocks, self.audio_layers, strict=True):
            count = len(layer.state_names())
            x = block(x, modulation, tuple(audio_state[used : used + count]), rotary, grid[0])
            used += count
        result: Tensor = self.head(x, time)
        if size == 1:
            result = result.transpose(1, 2).unflatten(2, grid)
            return result
        # Of a patch, cells come before channels.
        cells = result.unflatten(2, (size, size, -1)).unflatten(1, grid)
        result = cells.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return result

    def forward(self, latents: Tensor, timestep: Tensor, audio_features: Tensor, reference: Tensor) -> Tensor:
        """Conditioner and denoiser in one call; arguments as in `denoise` and `Conditioner.forward`."""
        return self.denoise(latents, reference, timestep, self.conditioner(audio_features))


class Conditioner(nn.Module):
    """Keys and values of every layer's audio attention, computed once per chunk."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.audio_proj = dit.audio_proj
        self.layers = nn.ModuleList(dit.audio_layers)

    def forward(self, audio_features: Tensor) -> tuple[Tensor, ...]:
        """[B, F, window, layers, width] -> tensors [B, k * tokens, dim] in `DiT.audio_state_names()` order.

        F is `temporal_compression * (k - 1) + 1`.
        """
        audio = self.audio_proj(audio_features)
        return tuple(tensor for layer in self.layers for tensor in cast("AudioAttention", layer).audio_state(audio))


class Denoiser(nn.Module):
    """`DiT.denoise` as a module, for exporters that need one positional argument per tensor."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, latents: Tensor, reference: Tensor, timestep: Tensor, *audio_state: Tensor) -> Tensor:
        """See `DiT.denoise`."""
        return self.dit.denoise(latents, reference, timestep, audio_state)
