"""The VAE of Wan 2.1: 8x8 pixels and 4 frames to one latent cell of 16 channels, causal in time.

Source: Wan (arXiv 2503.20314), with the parameter names of diffusers' `AutoencoderKLWan`, which walks through a clip
latent by latent over caches of frames. Here a clip is computed whole, to the same numbers. The first frame alone is
latent 0, and no level halves or doubles it in time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole, shown
from rap_edge.runtime.errors import CheckpointError

from ..config import check_config, check_rules, config_from_dict, known_fields
from ..fresh import draw_uniform

# Of the published latents, by channel.
_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_DEVIATION = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
_Statistic = Annotated[float, Real(-1e6, 1e6)]


@dataclass(frozen=True, kw_only=True)
class WanVaeConfig:
    """Sizes of a Wan 2.1 VAE; keys are those of diffusers' config.json, defaults Wan 2.1's.

    Attributes:
        in_channels: channels of a frame.
        out_channels: channels of a decoded frame.
        z_dim: channels of a latent.
        base_dim: width of the encoder's first level; the decoder's last has it too unless `decoder_base_dim` says so.
        decoder_base_dim: see above.
        dim_mult: width of every level, in multiples of `base_dim`.
        num_res_blocks: residual blocks of an encoder's level; the decoder's have one more.
        temperal_downsample: whether a level, but the last, halves time besides height and width.
        latents_mean: subtracted from latents, by channel.
        latents_std: by which latents are divided then.
    """

    in_channels: Annotated[int, Whole(1, 64)] = 3
    out_channels: Annotated[int, Whole(1, 64)] = 3
    z_dim: Annotated[int, Whole(1, 4096)] = 16
    base_dim: Annotated[int, Whole(1, 4096)] = 96
    decoder_base_dim: Annotated[int, Whole(1, 4096)] | None = None
    dim_mult: Annotated[tuple[Annotated[int, Whole(1, 64)], ...], Count(8)] = (1, 2, 4, 4)
    num_res_blocks: Annotated[int, Whole(0, 64)] = 2
    temperal_downsample: Annotated[tuple[bool, ...], Count(7)] = (False, True, True)
    latents_mean: Annotated[tuple[_Statistic, ...], Count(4096)] = _MEAN
    latents_std: Annotated[tuple[Annotated[float, Real(1e-6, 1e6)], ...], Count(4096)] = _DEVIATION

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.z_dim

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along height and width."""
        return int(2 ** (len(self.dim_mult) - 1))

    @property
    def temporal_compression(self) -> int:
        """Frames per latent after the first."""
        return int(2 ** sum(self.temperal_downsample))

    @classmethod
    def from_diffusers(cls, data: Mapping[str, Any], source: str) -> WanVaeConfig:
        """Read a published `AutoencoderKLWan` config.json of Wan 2.1.

        Raises:
            CheckpointError: it describes another VAE, as Wan 2.2's, or a value cannot work.
        """
        only: Mapping[str, object] = {
            "_class_name": "AutoencoderKLWan",
            "is_residual": False,
            "patch_size": None,
            "attn_scales": [],
        }
        for key, value in only.items():
            if data.get(key, value) != value:
                raise CheckpointError(
                    f"{source} says {key} {shown(data[key])} and only {value!r} is supported; use Wan 2.1's VAE."
                )
        return config_from_dict(cls, known_fields(cls, data), source).validate()

    def validate(self) -> WanVaeConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "Wan VAE")
        decoder = self.decoder_base_dim or self.base_dim
        check_rules(
            "Wan VAE",
            (
                len(self.dim_mult) >= 1 and len(self.temperal_downsample) == len(self.dim_mult) - 1,
                "temperal_downsample must be one shorter than dim_mult",
            ),
            (
                len(self.latents_mean) == len(self.latents_std) == self.z_dim,
                f"latents_mean and latents_std need one value for each of the {self.z_dim} channels",
            ),
            (
                all(decoder * times % 2 == 0 for times in self.dim_mult[1:]),
                "the decoder's widths must be even where it doubles",
            ),
        )
        return self


class CausalConv(nn.Conv3d):
    """3-D convolution with zeros around height and width, and before the first frame."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: tuple[int, int, int], *, time_stride: int = 1
    ) -> None:
        side = kernel[1] // 2
        super().__init__(in_channels, out_channels, kernel, (time_stride, 1, 1), (0, side, side))
        self.before = kernel[0] - 1

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H, W]."""
        return super().forward(F.pad(x, (0, 0, 0, 0, self.before, 0)) if self.before else x)


class RootMeanSquareNorm(nn.Module):
    """Divides by the root mean square over channels, in fp32, with a gain per channel."""

    def __init__(self, channels: int, *, axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * axes))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] with `axes` axes behind the channels -> the same shape and dtype."""
        full = x.float()
        return (full * torch.rsqrt((full * full).mean(dim=1, keepdim=True) + 1e-12)).to(x.dtype) * self.gamma


class ResidualBlock(nn.Module):
    """Two normalised convolutions with SiLU and a shortcut, projected if the width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = RootMeanSquareNorm(in_channels, axes=3)
        self.conv1 = CausalConv(in_channels, out_channels, (3, 3, 3))
        self.norm2 = RootMeanSquareNorm(out_channels, axes=3)
        self.conv2 = CausalConv(out_channels, out_channels, (3, 3, 3))
        self.conv_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.conv_shortcut = CausalConv(in_channels, out_channels, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T, H, W]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        result: Tensor = self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))
        return result


def _as_pictures(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B T, C, H, W]."""
    return x.transpose(1, 2).flatten(0, 1)


def _as_clips(pictures: Tensor, batch: int) -> Tensor:
    """What `_as_pictures` gave, back to [B, C, T, H, W]."""
    clips: Tensor = pictures.unflatten(0, (batch, -1)).transpose(1, 2)
    return clips


class AttentionBlock(nn.Module):
    """Self-attention of one head over the cells of every frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RootMeanSquareNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same shape."""
        cells = x.shape[3:]
        query, key, value = self.to_qkv(self.norm(_as_pictures(x))).flatten(2).chunk(3, 1)
        # Written out: no engine fuses attention of one head as wide as this. Half of the scale each, for fp16's sake.
        scale = query.shape[1] ** -0.25
        scores = (query * scale).transpose(1, 2) @ (key * scale)
        hidden = self.proj((value @ scores.softmax(-1).transpose(1, 2)).unflatten(2, cells))
        result: Tensor = x + _as_clips(hidden, x.shape[0])
        return result


class Halving(nn.Module):
    """Halves height and width, and of a temporal level time too; the first frame stays one by itself."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.resample = nn.ModuleList([nn.Identity(), nn.Conv2d(channels, channels, 3, 2)])
        if temporal:
            self.time_conv = CausalConv(channels, channels, (3, 1, 1), time_stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, T', H/2, W/2] with T' = (T + 1) / 2 of a temporal level."""
        x = _as_clips(self.resample[1](F.pad(_as_pictures(x), (0, 1, 0, 1))), x.shape[0])
        if not self.temporal:
            return x
        # Of zeros and the first frame, which is left as it is.
        later = self.time_conv(x)[:, :, 1:]
        return torch.cat((x[:, :, :1], later), dim=2)


class Doubling(nn.Module):
    """Doubles height and width and halves the channels; of a temporal level all frames but the first become two."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.resample = nn.ModuleList([nn.Identity(), nn.Conv2d(channels, channels // 2, 3, padding=1)])
        if temporal:
            self.time_conv = CausalConv(channels, 2 * channels, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C / 2, T', 2H, 2W] with T' = 2T - 1 of a temporal level."""
        if self.temporal:
            pairs = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
            x = torch.cat((x[:, :, :1], torch.stack((pairs[:, 0], pairs[:, 1]), dim=3).flatten(2, 3)), dim=2)
        pictures = _as_pictures(x)
        rows, columns = pictures.shape[2:]
        large = pictures[:, :, :, None, :, None].expand(-1, -1, rows, 2, columns, 2).flatten(4, 5).flatten(2, 3)
        return _as_clips(self.resample[1](large), x.shape[0])


class MiddleBlock(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels) for _ in range(2))
        self.attentions = nn.ModuleList([AttentionBlock(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same shape."""
        result: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return result


class UpBlock(nn.Module):
    """Residual blocks, then doubling."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, doubling: Doubling | None) -> None:
        super().__init__()
        widths = (in_channels, *(out_channels,) * layers)
        self.resnets = nn.ModuleList(ResidualBlock(width, out_channels) for width in widths[:layers])
        self.upsamplers = nn.ModuleList([] if doubling is None else [doubling])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Frames to the parameters of the posterior."""

    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        widths = [config.base_dim * times for times in (1, *config.dim_mult)]
        self.conv_in = CausalConv(config.in_channels, widths[0], (3, 3, 3))
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise(widths)):
            entries = (before, *(after,) * config.num_res_blocks)
            layers += [ResidualBlock(entry, after) for entry in entries[: config.num_res_blocks]]
            if level < len(config.temperal_downsample):
                layers.append(Halving(after, temporal=config.temperal_downsample[level]))
        self.down_blocks = nn.ModuleList(layers)
        self.mid_block = MiddleBlock(widths[-1])
        self.norm_out = RootMeanSquareNorm(widths[-1], axes=3)
        self.conv_out = CausalConv(widths[-1], 2 * config.z_dim, (3, 3, 3))

    def forward(self, frames: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> [B, 2 C, k, h, w]."""
        x = self.conv_in(frames)
        for layer in self.down_blocks:
            x = layer(x)
        result: Tensor = self.conv_out(F.silu(self.norm_out(self.mid_block(x))))
        return result


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        base = config.decoder_base_dim or config.base_dim
        widths = [base * times for times in (config.dim_mult[-1], *config.dim_mult[::-1])]
        temporal = config.temperal_downsample[::-1]
        self.conv_in = CausalConv(config.z_dim, widths[0], (3, 3, 3))
        self.mid_block = MiddleBlock(widths[0])
        self.up_blocks = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise(widths)):
            doubling = Doubling(after, temporal=temporal[level]) if level < len(temporal) else None
            # Doubling has halved the channels.
            entry = before // 2 if level else before
            self.up_blocks.append(UpBlock(entry, after, config.num_res_blocks + 1, doubling))
        self.norm_out = RootMeanSquareNorm(widths[-1], axes=3)
        self.conv_out = CausalConv(widths[-1], config.out_channels, (3, 3, 3))

    def forward(self, latents: Tensor) -> Tensor:
        """[B, C, k, h, w] -> [B, 3, T, H, W]."""
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        result: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return result


class WanVae(nn.Module):
    """Encoder and decoder with the statistics that normalise latents for the diffusion model."""

    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        self.config = config.validate()
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.post_quant_conv = CausalConv(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: uniform of deviation 1/sqrt(fan in), gains one, biases zero."""
        drawn = []
        for name, parameter in self.named_parameters():
            if name.endswith(("gamma", "bias")):
                nn.init.constant_(parameter, 1.0 if name.endswith("gamma") else 0.0)
            else:
                drawn.append((parameter, math.sqrt(3.0 / parameter[0].numel())))
        draw_uniform(drawn, generator)

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised latents of `frames`, the mode of the posterior.

        Args:
            frames: [B, 3, T, H, W] in -1..1, T = temporal_compression * (k - 1) + 1, H and W multiples of
                spatial_compression.

        Returns:
            [B, C, k, h, w].
        """
        mean, deviation = self._statistics(frames)
        posterior: Tensor = self.quant_conv(self.encoder(frames))[:, : self.config.z_dim]
        return (posterior - mean) / deviation

    def decode(self, latents: Tensor, last: int | None = None) -> Tensor:
        """The last frames [B, 3, last, H, W], about -1..1 and not clamped, of latents [B, C, k, h, w], k at least 2."""
        mean, deviation = self._statistics(latents)
        frames: Tensor = self.decoder(self.post_quant_conv(latents * deviation + mean))
        return frames if last is None else frames[:, :, -last:]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = (
            torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)
            for values in (self.config.latents_mean, self.config.latents_std)
        )
        return mean, deviation
