"""Attentions as the blocks of a DiT hold them, small."""

import torch
from torch import nn

from rap_edge.models.attention import AudioAttention, SelfAttention, rotary_table


class Rotated(nn.Module):
    """Self-attention of tokens [B, k * h * w, heads * d] with rotary positions, and norms with gains."""

    def __init__(self, heads: int = 3, width: int = 12, grid: tuple[int, int, int] = (2, 1, 3)) -> None:
        super().__init__()
        self.inner = SelfAttention(heads * width, heads, 1e-6)
        self.width, self.grid = width, grid
        with_gains(self.inner)

    def forward(self, x):
        return self.inner(x, rotary_table(self.width, self.grid, x.device))


class ToAudio(nn.Module):
    """Attention of six tokens [B, 6, 36] in two frames to audio that is part of the module."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.inner = AudioAttention(36, 3, 1e-6, alpha, separate=False)
        self.state = nn.Parameter(torch.randn(2, 1, 8, 36))
        with_gains(self.inner)

    def forward(self, x):
        return self.inner(x, tuple(self.state), 2)


def with_gains(attention: nn.Module) -> None:
    """Give the norms other gains than one, which could hide that one is lost."""
    for name, weight in attention.named_parameters():
        if "norm_" in name:
            nn.init.uniform_(weight, 0.5, 2.0)
