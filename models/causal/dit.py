"""A block-causal DiT: the velocity of one latent at a time, over keys and values of the latents before it.

The parts are `dit`'s; what differs is the past. A latent sees itself and the clean latents of a fixed window before it,
as self-forcing (arXiv 2506.08009) and diffusion-forcing (arXiv 2407.01392) students do. At run time the past is a cache
of every layer's keys and values, an explicit input and output; positions count within the window, so a stream has no
end. When a latent is done it is shown once more at level 0, and what that leaves is the next past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Real, Whole

from ..attention import AudioAttention, apply_rotary, rotary_table
from ..config import check_config, check_rules
from ..dit import timestep_sinusoid
from ..fresh import draw_weights
from ..norms import LayerNorm32, RMSNorm32


@dataclass(frozen=True, kw_only=True)
class CausalDiTConfig:
    """Sizes of a block-causal DiT.

    Attributes:
        channels: numbers in a latent; a latent has one cell.
        dim: width of the network.
        ffn_dim: width of the feed-forward layer.
        freq_dim: width of the timestep sinusoid.
        num_heads: attention heads.
        num_layers: blocks.
        past: latents that a latent sees before itself.
        audio_width: width of a feature of the audio encoder.
        audio_frames: consecutive features that a latent hears: those of its frames, some before and some after.
        audio_tokens: audio tokens per latent.
        audio_hidden: width of the audio projection.
        eps: epsilon of every normalisation.
    """

    channels: Annotated[int, Whole(1, 4096)] = 32
    dim: Annotated[int, Whole(2, 32768)] = 256
    ffn_dim: Annotated[int, Whole(1, 262144)] = 1024
    freq_dim: Annotated[int, Whole(2, 8192)] = 256
    num_heads: Annotated[int, Whole(1, 1024)] = 4
    num_layers: Annotated[int, Whole(1, 1024)] = 6
    past: Annotated[int, Whole(1, 4096)] = 30
    audio_width: Annotated[int, Whole(1, 16384)] = 256
    audio_frames: Annotated[int, Whole(1, 256)] = 10
    audio_tokens: Annotated[int, Whole(1, 4096)] = 8
    audio_hidden: Annotated[int, Whole(1, 32768)] = 256
    eps: Annotated[float, Real(0.0, 1.0)] = 1e-6

    def validate(self) -> CausalDiTConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "causal DiT")
        check_rules(
            "causal DiT",
            (
                self.dim % (2 * self.num_heads) == 0,
                f"dim {self.dim} must split into {self.num_heads} heads of even width",
            ),
            (self.freq_dim % 2 == 0, f"freq_dim {self.freq_dim} must be even"),
        )
        return self


class Past(NamedTuple):
    """What a stream remembers: of every layer the keys and values of the last latents, and which of them there are.

    Attributes:
        keys: [B, layers, past, dim], without their rotation.
        values: [B, layers, past, dim].
        known: [B, past], 1 where there is a latent and 0 before the stream began.
    """

    keys: Tensor
    values: Tensor
    known: Tensor


class CausalAttention(nn.Module):
    """Self-attention whose keys and values may come from elsewhere too."""

    def __init__(self, config: CausalDiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm32(dim, config.eps)
        self.norm_k = RMSNorm32(dim, config.eps)

    def own(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, not rotated, and values of tokens [B, N, dim]."""
        return self.norm_k(self.k(x)), self.v(x)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, turns: tuple[Tensor, Tensor], places: Tensor, bias: Tensor
    ) -> Tensor:
        """Tokens over keys and values.

        Args:
            x: [B, N, dim], the tokens.
            keys, values: [B, M, dim], the last N of them the tokens' own.
            turns: rotations of the keys, see `rotary_table`.
            places: [N], which of the turns is each token's.
            bias: [B or 1, N or 1, M], added to the scores.

        Returns:
            [B, N, dim].
        """
        cosine, sine = turns
        query = apply_rotary(self.norm_q(self.q(x)), cosine[places], sine[places], self.num_heads)
        key = apply_rotary(keys, cosine, sine, self.num_heads)
        query, key, value = (
            tensor.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for tensor in (query, key, values)
        )
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.unsqueeze(1).to(x.dtype))
        result: Tensor = self.o(found.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Self-attention and feed-forward under adaLN modulation per token, with audio cross-attention between them."""

    def __init__(self, config: CausalDiTConfig) -> None:
        super().__init__()
        dim, eps = config.dim, config.eps
        self.modulation = nn.Parameter(torch.zeros(6, dim))
        self.self_attn = CausalAttention(config)
        self.cross_attn = AudioAttention(dim, config.num_heads, eps, 1.0, separate=False)
        self.norm1 = LayerNorm32(dim, eps=eps, elementwise_affine=False)
        self.norm2 = LayerNorm32(dim, eps=eps, elementwise_affine=False)
        self.norm3 = LayerNorm32(dim, eps=eps)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, dim)
        )

    def shown(self, x: Tensor, modulation: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What self-attention sees of tokens [B, N, dim], and the modulation [B, N, 6, dim] taken apart."""
        parts = (self.modulation + modulation).unbind(2)
        return self.norm1(x) * (1 + parts[1]) + parts[0], parts

    def rest(self, x: Tensor, parts: tuple[Tensor, ...], state: tuple[Tensor, ...]) -> Tensor:
        """Audio and feed-forward: tokens [B, N, dim], modulation and the layer's audio state -> tokens."""
        _, _, _, shift, scale, gate = parts
        x = x + self.cross_attn(self.norm3(x), state, x.shape[1])
        result: Tensor = x + gate * self.ffn(self.norm2(x) * (1 + scale) + shift)
        return result


class CausalDiT(nn.Module):
    """Velocity of one latent at one noise level, given the past, the portrait and the sound."""

    def __init__(self, config: CausalDiTConfig) -> None:
        super().__init__()
        self.config = config.validate()
        dim = config.dim
        self.patch_embedding = nn.Linear(2 * config.channels, dim)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head_norm = LayerNorm32(dim, eps=config.eps, elementwise_affine=False)
        self.head_modulation = nn.Parameter(torch.zeros(2, dim))
        self.head = nn.Linear(dim, config.channels)
        self.audio_proj = nn.Sequential(
            nn.Linear(config.audio_frames * config.audio_width, config.audio_hidden),
            nn.SiLU(),
            nn.Linear(config.audio_hidden, config.audio_hidden),
            nn.SiLU(),
            nn.Linear(config.audio_hidden, config.audio_tokens * dim),
        )
        self.audio_norm = LayerNorm32(dim)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights as `DiT.reset_parameters` does."""
        draw_weights(self, generator, lambda name: name.endswith("modulation") or name == "head.weight")

    @property
    def layers(self) -> tuple[Block, ...]:
        """The blocks."""
        return tuple(cast("Block", block) for block in self.blocks)

    def no_past(self, batch: int = 1) -> Past:
        """The past of a stream that has not begun."""
        config = self.config
        empty = torch.zeros(batch, config.num_layers, config.past, config.dim)
        return Past(empty, empty.clone(), torch.zeros(batch, config.past))

    def conditioner(self, features: Tensor) -> tuple[Tensor, ...]:
        """What latents hear, computed once per latent.

        Args:
            features: [B, k, audio_frames, audio_width].

        Returns:
            Keys and values of every layer in turn, each [B, k * audio_tokens, dim].
        """
        tokens = self.audio_proj(features.flatten(2)).unflatten(-1, (self.config.audio_tokens, -1)).flatten(1, 2)
        tokens = self.audio_norm(tokens)
        return tuple(tensor for block in self.layers for tensor in block.cross_attn.audio_state(tokens))

    def denoise(
        self, latents: Tensor, reference: Tensor, timestep: Tensor, audio_state: Sequence[Tensor], past: Past
    ) -> tuple[Tensor, Past]:
        """Velocity of one latent, and the past of the next one if this one is clean.

        Args:
            latents: [B, C, 1, 1, 1].
            reference: the portrait's latent, [B, C, 1, 1, 1].
            timestep: [B] or [1] in 0..1000.
            audio_state: of this latent, see `conditioner`.
            past: see `Past`.

        Returns:
            Velocity [B, C, 1, 1, 1], and the past with this latent in the place of the oldest.
        """
        config = self.config
        both = torch.cat((latents, reference), dim=1).flatten(1).unsqueeze(1)
        x = self.patch_embedding(both)
        time = self._time(timestep.expand(latents.shape[0]).unsqueeze(1))
        modulation = self.time_projection(time).unflatten(-1, (6, -1))
        turns = rotary_table(config.dim // config.num_heads, (config.past + 1, 1, 1), x.device)
        here = torch.tensor([config.past], device=x.device)
        seen = torch.cat((past.known, torch.ones_like(past.known[:, :1])), dim=1)
        bias = ((seen - 1.0) * 1e4).unsqueeze(1)
        keys, values = [], []
        for index, block in enumerate(self.layers):
            shown, parts = block.shown(x, modulation)
            key, value = block.self_attn.own(shown)
            keys.append(torch.cat((past.keys[:, index], key), dim=1))
            values.append(torch.cat((past.values[:, index], value), dim=1))
            x = x + parts[2] * block.self_attn(shown, keys[-1], values[-1], turns, here, bias)
            x = block.rest(x, parts, tuple(audio_state[2 * index : 2 * index + 2]))
        later = Past(
            torch.stack([key[:, 1:] for key in keys], dim=1),
            torch.stack([value[:, 1:] for value in values], dim=1),
            seen[:, 1:],
        )
        return self._velocity(x, time).transpose(1, 2).unsqueeze(-1).unsqueeze(-1), later

    def forward(self, clean: Tensor, noisy: Tensor, timestep: Tensor, features: Tensor, reference: Tensor) -> Tensor:
        """Velocities of a whole clip at once, as training sees it: every latent over the clean ones before it.

        Args:
            clean: [B, N, C], what the past is made of, level 0.
            noisy: [B, N, C], at the levels of `timestep`.
            timestep: [B, N] in 0..1000.
            features: [B, N, audio_frames, audio_width].
            reference: the portrait's latent, [B, C].

        Returns:
            [B, N, C]; the same as `denoise` gives latent by latent.
        """
        count = clean.shape[1]
        latents = torch.cat((clean, noisy), dim=1)
        x = self.patch_embedding(torch.cat((latents, reference.unsqueeze(1).expand_as(latents)), dim=-1))
        time = self._time(torch.cat((torch.zeros_like(timestep), timestep), dim=1))
        modulation = self.time_projection(time).unflatten(-1, (6, -1))
        cosine, sine = rotary_table(self.config.dim // self.config.num_heads, (count, 1, 1), x.device)
        turns = (torch.cat((cosine, cosine)), torch.cat((sine, sine)))
        places = torch.arange(2 * count, device=x.device)
        bias = _clip_bias(count, self.config.past, x.device)
        state = [torch.cat((tensor, tensor), dim=1) for tensor in self.conditioner(features)]
        for index, block in enumerate(self.layers):
            shown, parts = block.shown(x, modulation)
            key, value = block.self_attn.own(shown)
            x = x + parts[2] * block.self_attn(shown, key, value, turns, places, bias)
            x = block.rest(x, parts, tuple(state[2 * index : 2 * index + 2]))
        return self._velocity(x, time)[:, count:]

    def _time(self, timestep: Tensor) -> Tensor:
        sinusoid = timestep_sinusoid(timestep.flatten(), self.config.freq_dim).unflatten(0, timestep.shape)
        result: Tensor = self.time_embedding(sinusoid.to(self.head.weight.dtype))
        return result

    def _velocity(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.head_modulation + time.unsqueeze(2)).unbind(2)
        result: Tensor = self.head(self.head_norm(x) * (1 + scale) + shift)
        return result


def _clip_bias(count: int, past: int, device: torch.device) -> Tensor:
    """Scores' bias [1, 2 N, 2 N]: clean latents see the clean up to themselves, noisy ones those before, and itself."""
    place = torch.arange(count, device=device)
    distance = place.unsqueeze(1) - place.unsqueeze(0)
    near = distance <= past
    own = distance == 0
    over_clean = torch.cat((near & (distance >= 0), near & (distance > 0)))
    over_noisy = torch.cat((torch.zeros_like(own), own))
    return torch.where(torch.cat((over_clean, over_noisy), dim=1), 0.0, -1e4).unsqueeze(0)
