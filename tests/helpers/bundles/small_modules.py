"""Modules of a few nodes: what a DiT's block and a decoder's end are made of."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Tokens(nn.Module):
    """Residual branch with a gate per channel, an offset per token and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.gate = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x):
        hidden = F.gelu(self.up(self.norm(x)), approximate="tanh")
        y = x + self.gate * self.down(hidden) + self.places
        return y.transpose(1, 2), y


class Frames(nn.Module):
    """Patches [T, 5, h, w] to uint8 frames [T, 2h, 2w, 3] and the pixels' mean magnitude, as a decoder ends."""

    def __init__(self, *, per_channel: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 12, 3, padding=1)
        self.scale = torch.tensor([100.0, 110.0, 120.0]).view(3, 1, 1, 1) if per_channel else 127.5

    def forward(self, x):
        pixels = F.pixel_shuffle(self.conv(x), 2).unflatten(0, (1, -1)).transpose(1, 2).squeeze(0)
        levels = pixels * self.scale + 127.5
        frames = levels.round().clamp(0.0, 255.0).permute(1, 2, 3, 0)
        return frames.to(torch.uint8), levels.abs().mean().reshape(1)
