"""Attention of the DiT: 3-axis rotary embedding, full self-attention and RAP's hybrid audio attention.

Sources: Wan2.1 (rotary axes, RMSNorm on q and k over the full width), RAP (arXiv 2508.05115, hybrid attention).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from .norms import RMSNorm32


def attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Softmax attention of `query` [B, N, heads*d] over `key` and `value` [B, M, heads*d]; gives [B, N, heads*d]."""
    heads = (tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


def hybrid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    full_key: Tensor,
    full_value: Tensor,
    alpha: float,
    num_heads: int,
    frames: int,
) -> Tensor:
    """RAP's hybrid attention, `alpha * window + (1 - alpha) * full`.

    `window` lets the tokens of latent frame j see the audio tokens of latent frame j alone; `full` lets every
    token see all audio tokens. A branch of weight 0 is not computed, and its keys and values are ignored.

    Args:
        query: [B, frames * h * w, heads * d], the video tokens, latent frame by latent frame.
        key, value: [B, frames * tokens, heads * d], the audio tokens that the window branch sees.
        full_key, full_value: [B, frames * tokens, heads * d], those that the full branch sees; the same
            tensors as `key` and `value` where the branches share weights.
        alpha: weight of the window branch in 0..1.
        num_heads: attention heads.
        frames: latent frames k.

    Returns:
        [B, frames * h * w, heads * d].

    Source: RAP (arXiv 2508.05115), hybrid attention; FlashHead is the case alpha = 1.
    """
    if alpha <= 0.0:
        return attention(query, full_key, full_value, num_heads)
    z, keys, values = (tensor.unflatten(1, (frames, -1)).flatten(0, 1) for tensor in (query, key, value))
    window = attention(z, keys, values, num_heads).unflatten(0, (-1, frames)).flatten(1, 2)
    if alpha >= 1.0:
        result: Tensor = window
        return result
    full = attention(query, full_key, full_value, num_heads)
    result = alpha * window + (1.0 - alpha) * full
    return result


class HybridAttention(nn.Module):
    """`hybrid_attention` as the parameterless submodule `blocks[i].cross_attn.attend`.

    It is the one place where the op is called. An exporter that wants a custom op replaces the submodule by its
    own module with the same `alpha`, `num_heads` and `forward`:
    `block.cross_attn.attend = MyHybridAttention(block.cross_attn.attend.alpha, block.cross_attn.attend.num_heads)`.
    """

    def __init__(self, alpha: float, num_heads: int) -> None:
        super().__init__()
        self.alpha = alpha
        self.num_heads = num_heads

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, full_key: Tensor, full_value: Tensor, frames: int
    ) -> Tensor:
        """See `hybrid_attention`."""
        return hybrid_attention(query, key, value, full_key, full_value, self.alpha, self.num_heads, frames)


@lru_cache(maxsize=16)
def _rotary_angles(head_dim: int, frames: int, height: int, width: int, theta: float) -> NDArray[np.float64]:
    side = 2 * (head_dim // 6)
    axes = []
    for axis, (size, dim) in enumerate(((frames, head_dim - 2 * side), (height, side), (width, side))):
        angles = np.outer(np.arange(size), theta ** -(np.arange(0, dim, 2) / dim))
        shape = [1, 1, 1, dim // 2]
        shape[axis] = size
        axes.append(np.broadcast_to(angles.reshape(shape), (frames, height, width, dim // 2)))
    return np.concatenate(axes, axis=-1).reshape(frames * height * width, head_dim // 2)


def rotary_table(
    head_dim: int, grid: tuple[int, int, int], device: torch.device, theta: float = 1e4
) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each fp32 [k*h*w, 1, head_dim / 2], for the cells of `grid` = (k, h, w).

    The pairs of a head are split over time, height and width as in Wan2.1: 22, 21 and 21 for a head of 128.
    The table depends on the grid alone, so it is a constant of every exported graph.
    """
    angles = _rotary_angles(head_dim, *grid, theta)[:, None, :]
    cosine, sine = (torch.from_numpy(table(angles).astype(np.float32)) for table in (np.cos, np.sin))
    return cosine.to(device), sine.to(device)


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor, num_heads: int) -> Tensor:
    """Rotate adjacent channel pairs of every head of `x` [B, N, heads*d] by `rotary_table`'s angles, in fp32."""
    pairs = x.float().unflatten(-1, (num_heads, -1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return rotated.flatten(2).to(x.dtype)


class SelfAttention(nn.Module):
    """Full self-attention over all latent cells of a chunk, with rotary positions."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm32(dim, eps)
        self.norm_k = RMSNorm32(dim, eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        query = apply_rotary(self.norm_q(self.q(x)), *rotary, self.num_heads)
        key = apply_rotary(self.norm_k(self.k(x)), *rotary, self.num_heads)
        result: Tensor = self.o(attention(query, key, self.v(x), self.num_heads))
        return result


class AudioAttention(nn.Module):
    """Hybrid cross-attention from video tokens to audio tokens; keys and values are computed once per chunk.

    With separate branches the full branch has its own `full_k`, `full_v` and `norm_full_k` (our choice; RAP does
    not publish whether the branches share weights).
    """

    def __init__(self, dim: int, num_heads: int, eps: float, alpha: float, *, separate: bool) -> None:
        super().__init__()
        self.separate = separate
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm32(dim, eps)
        self.norm_k = RMSNorm32(dim, eps)
        if separate:
            self.full_k = nn.Linear(dim, dim)
            self.full_v = nn.Linear(dim, dim)
            self.norm_full_k = RMSNorm32(dim, eps)
        self.attend = HybridAttention(alpha, num_heads)

    @property
    def uses_own_full(self) -> bool:
        """Whether the full branch is computed from keys and values of its own."""
        return self.separate and self.attend.alpha < 1.0

    @property
    def uses_window(self) -> bool:
        """Whether `k` and `v` take part: always when shared, else if the window branch has a weight."""
        return not self.separate or self.attend.alpha > 0.0

    def state_names(self) -> tuple[str, ...]:
        """Kinds of the tensors that `audio_state` gives, in order."""
        names = ("key", "value") if self.uses_window else ()
        return (*names, "full_key", "full_value") if self.uses_own_full else names

    def audio_state(self, audio: Tensor) -> tuple[Tensor, ...]:
        """Keys and values [B, k*tokens, dim] of the audio tokens [B, k*tokens, dim], in `state_names` order."""
        state: tuple[Tensor, ...] = ()
        if self.uses_window:
            state += (self.norm_k(self.k(audio)), self.v(audio))
        if self.uses_own_full:
            state += (self.norm_full_k(self.full_k(audio)), self.full_v(audio))
        return state

    def forward(self, x: Tensor, state: tuple[Tensor, ...], frames: int) -> Tensor:
        """[B, N, dim] and this layer's `audio_state` -> [B, N, dim]."""
        # One branch alone stands in for the other, whose weight is then 0 or whose weights are shared.
        key, value, full_key, full_value = *state[:2], *state[-2:]
        result: Tensor = self.o(self.attend(self.norm_q(self.q(x)), key, value, full_key, full_value, frames))
        return result
