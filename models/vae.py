"""The LTX-Video VAE: 32x32 pixels and 8 frames to one latent cell.

Sources: LTX-Video (arXiv 2501.00103), version 0.9.0, with the parameter names of diffusers'
`AutoencoderKLLTXVideo`. The first frame alone is latent 0; each later latent is `temporal_compression` frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole, shown
from rap_edge.runtime.errors import CheckpointError

from .config import check_config, check_rules, config_from_dict, known_fields
from .fresh import draw_uniform
from .norms import LayerNorm32


class Vae(Protocol):
    """What the exporter asks of every VAE module."""

    def encode(self, frames: Tensor) -> Tensor:
        """[B, 3, T, H, W] in -1..1 -> normalised latents [B, C, k, h, w], the mode of the posterior."""

    def decode(self, latents: Tensor, last: int | None = None) -> Tensor:
        """Normalised latents [B, C, k, h, w] -> the last frames [B, 3, last, H, W], about -1..1 and not clamped.

        None gives every frame. A network may leave out the work that only earlier frames need.
        """


@dataclass(frozen=True, kw_only=True)
class LtxVaeConfig:
    """Sizes of an LTX-Video VAE; keys are those of diffusers' config.json, defaults LTX 0.9.0's.

    Attributes:
        in_channels: channels of a frame.
        out_channels: channels of a decoded frame.
        latent_channels: channels of a latent.
        block_out_channels: widths of the encoder's blocks.
        layers_per_block: residual blocks in each encoder block, then in the middle.
        spatio_temporal_scaling: whether an encoder block halves time, height and width.
        decoder_block_out_channels: widths of the decoder's blocks, in the encoder's order.
        decoder_layers_per_block: as `layers_per_block`, in the encoder's order.
        decoder_spatio_temporal_scaling: whether a decoder block doubles, in the encoder's order.
        patch_size: pixels that are folded into channels along height and width.
        resnet_norm_eps: epsilon of the shortcuts' layer normalisation.
        scaling_factor: factor on normalised latents.
        encoder_causal: whether the encoder's convolutions see no later frame.
        decoder_causal: whether the decoder's do.
    """

    in_channels: Annotated[int, Whole(1, 64)] = 3
    out_channels: Annotated[int, Whole(1, 64)] = 3
    latent_channels: Annotated[int, Whole(1, 4096)] = 128
    block_out_channels: Annotated[tuple[Annotated[int, Whole(1, 16384)], ...], Count(16)] = (128, 256, 512, 512)
    layers_per_block: Annotated[tuple[Annotated[int, Whole(0, 64)], ...], Count(17)] = (4, 3, 3, 3, 4)
    spatio_temporal_scaling: Annotated[tuple[bool, ...], Count(16)] = (True, True, True, False)
    decoder_block_out_channels: Annotated[tuple[Annotated[int, Whole(1, 16384)], ...], Count(16)] = (128, 256, 512, 512)
    decoder_layers_per_block: Annotated[tuple[Annotated[int, Whole(0, 64)], ...], Count(17)] = (4, 3, 3, 3, 4)
    decoder_spatio_temporal_scaling: Annotated[tuple[bool, ...], Count(16)] = (True, True, True, False)
    patch_size: Annotated[int, Whole(1, 64)] = 4
    resnet_norm_eps: Annotated[float, Real(0.0, 1.0)] = 1e-6
    scaling_factor: Annotated[float, Real(1e-6, 1e6)] = 1.0
    encoder_causal: bool = True
    decoder_causal: bool = False

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along height and width."""
        return self.patch_size * self.temporal_compression

    @property
    def temporal_compression(self) -> int:
        """Frames per latent after the first."""
        total: int = 2 ** sum(self.spatio_temporal_scaling)
        return total

    @classmethod
    def from_diffusers(cls, data: Mapping[str, Any], source: str) -> LtxVaeConfig:
        """Read a published `AutoencoderKLLTXVideo` config.json of LTX 0.9.0.

        Raises:
            CheckpointError: it describes a later LTX VAE, or a value cannot work.
        """
        later = {
            "timestep_conditioning": (False,),
            "patch_size_t": (1,),
            "decoder_inject_noise": (False,),
            "upsample_residual": (False,),
            "upsample_factor": (1,),
            "down_block_types": ("LTXVideoDownBlock3D",),
            "downsample_type": ("conv",),
        }
        for key, (only,) in later.items():
            value = data.get(key, only)
            if any(item != only for item in (value if isinstance(value, list | tuple) else (value,))):
                raise CheckpointError(
                    f"{source} says {key} {shown(value)}, which belongs to an LTX VAE later than 0.9.0; use the "
                    "0.9.0 VAE."
                )
        values = known_fields(cls, data)
        for key in ("block_out_channels", "layers_per_block", "spatio_temporal_scaling"):
            # The first published configs have one list for both halves.
            if key in values:
                values.setdefault(f"decoder_{key}", values[key])
        return config_from_dict(cls, values, source).validate()

    def validate(self) -> LtxVaeConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "LTX VAE")
        encoder = (self.block_out_channels, self.layers_per_block, self.spatio_temporal_scaling)
        decoder = (
            self.decoder_block_out_channels,
            self.decoder_layers_per_block,
            self.decoder_spatio_temporal_scaling,
        )
        check_rules(
            "LTX VAE",
            (
                all(len(widths) + 1 == len(layers) == len(scale) + 1 for widths, layers, scale in (encoder, decoder)),
                "the lists of layers must be one longer than those of widths and scaling",
            ),
            (
                sum(encoder[2]) == sum(decoder[2]),
                "the decoder must double as often as the encoder halves",
            ),
        )
        return self


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


class ResidualBlock(nn.Module):
    """Two normalised convolutions with SiLU and a shortcut, projected if the width changes."""

    def __init__(self, in_channels: int, out_channels: int, eps: float, *, causal: bool) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T, H, W]."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        result: Tensor = self.conv_shortcut(self.norm3(x)) + hidden
        return result


class Upsampler(nn.Module):
    """Doubles time, height and width by folding channels out; the first frame's duplicate is dropped."""

    def __init__(self, channels: int, *, causal: bool) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, 8 * channels, 3, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, 2T - 1, 2H, 2W]."""
        folded = self.conv(x).unflatten(1, (-1, 2, 2, 2))
        unfolded = folded.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        result: Tensor = unfolded[:, :, 1:]
        return result


class MiddleBlock(nn.Module):
    """Residual blocks of one width."""

    def __init__(self, channels: int, layers: int, eps: float, *, causal: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, eps, causal=causal) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same shape."""
        for resnet in self.resnets:
            x = resnet(x)
        return x


class DownBlock(nn.Module):
    """Residual blocks, then halving, then a change of width."""

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, eps: float, *, halve: bool, causal: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(in_channels, in_channels, eps, causal=causal) for _ in range(layers))
        self.downsamplers = nn.ModuleList(
            [CausalConv3d(in_channels, in_channels, 3, causal=causal, stride=2)] if halve else []
        )
        self.conv_out: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.conv_out = ResidualBlock(in_channels, out_channels, eps, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        result: Tensor = self.conv_out(x)
        return result


class UpBlock(nn.Module):
    """A change of width, then doubling, then residual blocks."""

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, eps: float, *, double: bool, causal: bool
    ) -> None:
        super().__init__()
        self.conv_in: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.conv_in = ResidualBlock(in_channels, out_channels, eps, causal=causal)
        self.upsamplers = nn.ModuleList([Upsampler(out_channels, causal=causal)] if double else [])
        self.resnets = nn.ModuleList(
            ResidualBlock(out_channels, out_channels, eps, causal=causal) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T', H', W']."""
        x = self.conv_in(x)
        for layer in (*self.upsamplers, *self.resnets):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Frames to the mean of the posterior; the last channel of `conv_out`, its log variance, is dropped."""

    def __init__(self, config: LtxVaeConfig) -> None:
        super().__init__()
        widths, eps, causal = config.block_out_channels, config.resnet_norm_eps, config.encoder_causal
        self.patch_size = config.patch_size
        self.latent_channels = config.latent_channels
        self.conv_in = CausalConv3d(config.in_channels * config.patch_size**2, widths[0], 3, causal=causal)
        self.down_blocks = nn.ModuleList(
            DownBlock(width, following, layers, eps, halve=halve, causal=causal)
            for width, following, layers, halve in zip(
                widths,
                (*widths[1:], widths[-1]),
                config.layers_per_block[:-1],
                config.spatio_temporal_scaling,
                strict=True,
            )
        )
        self.mid_block = MiddleBlock(widths[-1], config.layers_per_block[-1], eps, causal=causal)
        self.norm_out = PixelNorm()
        self.conv_out = CausalConv3d(widths[-1], config.latent_channels + 1, 3, causal=causal)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> [B, C, k, h, w]."""
        patches = frames.unflatten(4, (-1, self.patch_size)).unflatten(3, (-1, self.patch_size))
        x = self.conv_in(patches.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3))
        for block in self.down_blocks:
            x = block(x)
        x = F.silu(self.norm_out(self.mid_block(x)))
        result: Tensor = self.conv_out(x)[:, : self.latent_channels]
        return result


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: LtxVaeConfig) -> None:
        super().__init__()
        widths = config.decoder_block_out_channels[::-1]
        layers = config.decoder_layers_per_block[::-1]
        eps, causal = config.resnet_norm_eps, config.decoder_causal
        self.patch_size = config.patch_size
        self.conv_in = CausalConv3d(config.latent_channels, widths[0], 3, causal=causal)
        self.mid_block = MiddleBlock(widths[0], layers[0], eps, causal=causal)
        self.up_blocks = nn.ModuleList(
            UpBlock(previous, width, count, eps, double=double, causal=causal)
            for previous, width, count, double in zip(
                (widths[0], *widths[:-1]),
                widths,
                layers[1:],
                config.decoder_spatio_temporal_scaling[::-1],
                strict=True,
            )
        )
        self.norm_out = PixelNorm()
        self.conv_out = CausalConv3d(widths[-1], config.out_channels * config.patch_size**2, 3, causal=causal)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, C, k, h, w] -> [B, 3, T, H, W]."""
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        patches = x.unflatten(1, (-1, self.patch_size, self.patch_size))
        result: Tensor = patches.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)
        return result


class LtxVae(nn.Module):
    """Encoder and decoder with the statistics that normalise latents for the diffusion model."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: LtxVaeConfig) -> None:
        super().__init__()
        self.config = config.validate()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latents_std", torch.ones(config.latent_channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: uniform of deviation 1/sqrt(fan in), gains one, biases and means zero."""
        drawn = []
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                drawn.append((parameter, math.sqrt(3.0 / parameter[0].numel())))
            else:
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
        draw_uniform(drawn, generator)
        nn.init.zeros_(self.latents_mean)
        nn.init.ones_(self.latents_std)

    def encode(self, frames: Tensor) -> Tensor:
        """Normalised latents of `frames`, the mode of the posterior.

        Args:
            frames: [B, 3, T, H, W] in -1..1, T = temporal_compression * (k - 1) + 1, H and W multiples of
                spatial_compression.

        Returns:
            [B, C, k, h, w].
        """
        mean, deviation = self._statistics()
        result: Tensor = (self.encoder(frames) - mean) * (self.config.scaling_factor / deviation)
        return result

    def decode(self, latents: Tensor, last: int | None = None) -> Tensor:
        """The last frames [B, 3, last, H, W], about -1..1 and not clamped, of normalised latents [B, C, k, h, w]."""
        mean, deviation = self._statistics()
        frames: Tensor = self.decoder(latents * (deviation / self.config.scaling_factor) + mean)
        return frames if last is None else frames[:, :, -last:]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        return self.latents_mean.view(1, -1, 1, 1, 1), self.latents_std.view(1, -1, 1, 1, 1)
