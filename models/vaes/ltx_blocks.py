"""What an LTX-Video VAE is made of: convolutions that are padded in time, norms, residual blocks, samplers.

Sources: LTX-Video (arXiv 2501.00103) and its later versions, with the parameter names of diffusers'
`AutoencoderKLLTXVideo`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..norms import LayerNorm32
from .ltx_config import STRIDES, DecoderBlock, Downsampling


class CausalConv3d(nn.Module):
    """3-D convolution with zeros around height and width and replicated edge frames in time.

    Causal: `kernel - 1` copies of the first frame before it. Not causal: half as many at each end. The padding in
    time is its own step, so that `conv` can be rewritten as a sum of 2-D convolutions over shifted frames.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, causal: bool, stride: int = 1) -> None:
        super().__init__()
        side = kernel // 2
        self.before, self.after = (kernel - 1, 0) if causal else ((kernel - 1) // 2, (kernel - 1) // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, (0, side, side))

    def pad_time(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] with its edge frames repeated `before` and `after` times."""
        if self.before + self.after == 0:
            return x
        return torch.cat((*[x[:, :, :1]] * self.before, x, *[x[:, :, -1:]] * self.after), dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        result: Tensor = self.conv(self.pad_time(x))
        return result


class PixelNorm(nn.Module):
    """`x / sqrt(mean over channels of x^2 + 1e-8)`; in fp32, because the squares overflow fp16."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same shape and dtype."""
        full = x.float()
        return (full * torch.rsqrt((full * full).mean(dim=1, keepdim=True) + 1e-8)).to(x.dtype)


class ChannelLayerNorm(LayerNorm32):
    """Layer normalisation over the channel axis of [B, C, T, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same shape and dtype."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class TimestepEmbedding(nn.Module):
    """A timestep, the same for every picture, as a vector: a sinusoid of 256 numbers (cosines first) and two layers."""

    def __init__(self, width: int, timestep: float) -> None:
        super().__init__()
        self.timestep = timestep
        self.timestep_embedder = nn.ModuleDict({"linear_1": nn.Linear(256, width), "linear_2": nn.Linear(width, width)})

    def forward(self, dtype: torch.dtype, scale: Tensor) -> Tensor:
        """[width], of `timestep` times `scale`."""
        rates = torch.exp(-math.log(10000.0) * torch.arange(128, device=scale.device, dtype=torch.float32) / 128)
        angles = self.timestep * scale.float() * rates
        layers = self.timestep_embedder
        hidden = layers["linear_1"](torch.cat((torch.cos(angles), torch.sin(angles))).to(dtype)[None])
        result: Tensor = layers["linear_2"](F.silu(hidden))[0]
        return result


class ResidualBlock(nn.Module):
    """Two normalised convolutions with SiLU and a shortcut, projected if the width changes.

    In a conditioned decoder the norms are scaled and shifted by the timestep's embedding and a table.
    """

    def __init__(
        self, in_channels: int, out_channels: int, eps: float, *, causal: bool, conditioned: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = PixelNorm()
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, causal=causal)
        self.norm2 = PixelNorm()
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, causal=causal)
        self.norm3: nn.Module = nn.Identity()
        self.conv_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.norm3 = ChannelLayerNorm(in_channels, eps=eps)
            self.conv_shortcut = CausalConv3d(in_channels, out_channels, 1, causal=causal)
        if conditioned:
            self.scale_shift_table = nn.Parameter(torch.zeros(4, in_channels))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """[B, C, T, H, W], and of a conditioned decoder [4 C] -> [B, C', T, H, W]."""
        first, second = self.norm1(x), self.norm2
        if embedding is None:
            hidden = self.conv2(F.silu(second(self.conv1(F.silu(first)))))
        else:
            rows = (embedding.unflatten(0, (4, -1)) + self.scale_shift_table)[:, None, :, None, None, None]
            hidden = self.conv1(F.silu(first * (1 + rows[1]) + rows[0]))
            hidden = self.conv2(F.silu(second(hidden) * (1 + rows[3]) + rows[2]))
        result: Tensor = self.conv_shortcut(self.norm3(x)) + hidden
        return result


def fold_cells(x: Tensor, time: int, side: int) -> Tensor:
    """Cells of `time` frames and `side` x `side` pixels into channels: [B, C, T, H, W] -> [B, C t s s, T/t, ...]."""
    cells = x.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, time))
    folded: Tensor = cells.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
    return folded


def unfold_cells(x: Tensor) -> Tensor:
    """Eight channels into cells of two frames and 2 x 2 pixels: [B, 8 C, T, H, W] -> [B, C, 2 T, 2 H, 2 W]."""
    cells = x.unflatten(1, (-1, 2, 2, 2))
    unfolded: Tensor = cells.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return unfolded


class Downsampler(nn.Module):
    """Halves by folding cells into channels, and adds the means of what was folded (0.9.5)."""

    def __init__(self, in_channels: int, out_channels: int, kind: Downsampling, *, causal: bool) -> None:
        super().__init__()
        self.time, self.side = STRIDES[kind]
        cells = self.time * self.side * self.side
        self.group = in_channels * cells // out_channels
        self.conv = CausalConv3d(in_channels, out_channels // cells, 3, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        # The first frame is repeated, so that it is a cell of its own.
        x = torch.cat((x[:, :, : self.time - 1], x), dim=2)
        means = fold_cells(x, self.time, self.side).unflatten(1, (-1, self.group)).mean(dim=2)
        result: Tensor = fold_cells(self.conv(x), self.time, self.side) + means
        return result


class Upsampler(nn.Module):
    """Doubles time, height and width by folding channels out; the first frame's duplicate is dropped.

    With a residual, what comes in is folded out too, repeated over the channels, and added.
    """

    def __init__(self, channels: int, *, causal: bool, factor: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.repeats = 8 // factor if residual else 0
        self.conv = CausalConv3d(channels, 8 * channels // factor, 3, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C / factor, 2T - 1, 2H, 2W]."""
        result = unfold_cells(self.conv(x))
        if self.repeats:
            result = result + unfold_cells(x).repeat(1, self.repeats, 1, 1, 1)
        return result[:, :, 1:]


class MiddleBlock(nn.Module):
    """Residual blocks of one width."""

    def __init__(self, channels: int, layers: int, eps: float, *, causal: bool, timestep: float | None = None) -> None:
        super().__init__()
        conditioned = timestep is not None
        if timestep is not None:
            self.time_embedder = TimestepEmbedding(4 * channels, timestep)
        self.resnets = nn.ModuleList(
            ResidualBlock(channels, channels, eps, causal=causal, conditioned=conditioned) for _ in range(layers)
        )

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, C, T, H, W], and of a conditioned decoder the timestep's scale -> the same shape."""
        embedding = None if scale is None else self.time_embedder(x.dtype, scale)
        for resnet in self.resnets:
            x = resnet(x, embedding)
        return x


class DownBlock(nn.Module):
    """Residual blocks, then halving, then a change of width; 0.9.5's change it where they halve."""

    def __init__(
        self,
        widths: tuple[int, int],
        layers: int,
        eps: float,
        *,
        halving: Downsampling | None,
        widens: bool,
        causal: bool,
    ) -> None:
        super().__init__()
        before, after = widths
        self.resnets = nn.ModuleList(ResidualBlock(before, before, eps, causal=causal) for _ in range(layers))
        self.downsamplers = nn.ModuleList()
        if halving is not None and widens and halving != "conv":
            self.downsamplers.append(Downsampler(before, after, halving, causal=causal))
        elif halving is not None:
            self.downsamplers.append(CausalConv3d(before, before, 3, causal=causal, stride=2))
        self.conv_out: nn.Module = nn.Identity()
        if before != after and not widens:
            self.conv_out = ResidualBlock(before, after, eps, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        result: Tensor = self.conv_out(x)
        return result


class UpBlock(nn.Module):
    """A change of width, then doubling, then residual blocks."""

    def __init__(
        self, block: DecoderBlock, layers: int, eps: float, *, causal: bool, timestep: float | None = None
    ) -> None:
        super().__init__()
        width, conditioned = block.width, timestep is not None
        if timestep is not None:
            self.time_embedder = TimestepEmbedding(4 * width, timestep)
        self.conv_in: nn.Module = nn.Identity()
        if block.entry != width:
            self.conv_in = ResidualBlock(block.entry, width, eps, causal=causal)
        self.upsamplers = nn.ModuleList()
        if block.double:
            self.upsamplers.append(
                Upsampler(width * block.factor, causal=causal, factor=block.factor, residual=block.residual)
            )
        self.resnets = nn.ModuleList(
            ResidualBlock(width, width, eps, causal=causal, conditioned=conditioned) for _ in range(layers)
        )

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, C, T, H, W], and of a conditioned decoder the timestep's scale -> [B, C', T', H', W']."""
        embedding = None if scale is None else self.time_embedder(x.dtype, scale)
        x = self.conv_in(x)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        for resnet in self.resnets:
            x = resnet(x, embedding)
        return x
