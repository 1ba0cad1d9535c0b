"""Normalisations. Those that end in 32 compute in fp32 whatever their input, or sums in fp16 would overflow."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class LayerNorm32(nn.LayerNorm):
    """`nn.LayerNorm` over the last axis, computed in fp32 and returned in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> the same shape and dtype."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class RMSNorm32(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis, computed in fp32, returned in the input's dtype."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> the same shape and dtype."""
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(x.dtype)


class ChannelNorm(nn.Module):
    """Divides each pixel by the root mean square of its channels, with a gain per channel (PixelNorm)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x * (torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps) * self.gain)
