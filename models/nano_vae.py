"""The video autoencoder of nano: 32x32 spatial compression and 8x (or 4x) temporal compression in 2-D convolutions.

The grouping is LTX-Video's (the first frame alone is latent 0, every later latent is `temporal_compression` frames;
arXiv 2501.00103). Both halves are causal in time: a latent is a function of its own frames, and a frame depends on
its own latent and the two before it, so that chunks which share two latents decode to the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole

from .config import check_config, check_rules
from .norms import ChannelNorm


@dataclass(frozen=True, kw_only=True)
class NanoVAEConfig:
    """Sizes and latent statistics of the autoencoder.

    Attributes:
        latent_channels: channels of a latent.
        temporal_compression: frames per latent after the first.
        patch: side of the pixel patch that a cell of the finest feature map stands for.
        encoder_widths: channels at 32x32, 16x16 and 8x8 (for 256-pixel frames); its strides of 2 times `patch` give
            the spatial compression.
        squeeze_width: channels that one frame hands to its group.
        latent_width: channels of the layers between latents and frames.
        phase_width: channels of one frame where a latent is split into its frames.
        decoder_widths: channels at 8x8, 16x16, 32x32 and 64x64.
        latents_mean: per channel, the mean of the raw latents over the training set; empty before it is measured.
        latents_std: per channel, their deviation.
        eps: epsilon of the normalisations.
    """

    latent_channels: Annotated[int, Whole(1, 1024)] = 64
    temporal_compression: Annotated[int, Whole(1, 64)] = 8
    patch: Annotated[int, Whole(1, 64)] = 4
    encoder_widths: Annotated[tuple[Annotated[int, Whole(1, 1024)], ...], Count(8)] = (64, 128, 192)
    squeeze_width: Annotated[int, Whole(1, 1024)] = 64
    latent_width: Annotated[int, Whole(1, 1024)] = 256
    phase_width: Annotated[int, Whole(1, 1024)] = 128
    decoder_widths: Annotated[tuple[Annotated[int, Whole(1, 1024)], ...], Count(9)] = (256, 192, 96, 64)
    latents_mean: Annotated[tuple[Annotated[float, Real(-1e6, 1e6)], ...], Count(1024)] = ()
    latents_std: Annotated[tuple[Annotated[float, Real(0.0, 1e6)], ...], Count(1024)] = ()
    eps: Annotated[float, Real(0.0, 1.0)] = 1e-4

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along height and width."""
        total: int = self.patch * 2 ** len(self.encoder_widths)
        return total

    def validate(self) -> NanoVAEConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "nano VAE")
        check_rules(
            "nano VAE",
            (
                len(self.decoder_widths) == len(self.encoder_widths) + 1,
                "decoder_widths must have one entry more than encoder_widths",
            ),
            (
                len(self.latents_mean) == len(self.latents_std) and len(self.latents_mean) in (0, self.latent_channels),
                "latents_mean and latents_std need one value per latent channel",
            ),
        )
        return self


class Block(nn.Module):
    """Residual block: norm, SiLU, 3x3 convolution, SiLU, 3x3 convolution."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, eps)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.normal_(self.conv2.weight, std=0.1 * (9 * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        result: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))
        return result


class Encoder(nn.Module):
    """Groups of frames to the mean and log-variance of their latents; a group does not see its neighbours."""

    def __init__(self, config: NanoVAEConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.compression = config.temporal_compression
        layers: list[nn.Module] = []
        width = 3 * config.patch**2
        for out in config.encoder_widths:
            layers += [nn.Conv2d(width, out, 3, stride=2, padding=1), Block(out, config.eps)]
            width = out
        self.frame = nn.Sequential(*layers, nn.Conv2d(width, config.squeeze_width, 1))
        self.group = nn.Sequential(
            nn.Conv2d(config.temporal_compression * config.squeeze_width, config.latent_width, 3, padding=1),
            Block(config.latent_width, config.eps),
            ChannelNorm(config.latent_width, config.eps),
            nn.SiLU(),
            nn.Conv2d(config.latent_width, 2 * config.latent_channels, 3, padding=1),
        )

    def forward(self, groups: Tensor) -> Tensor:
        """[B * k * temporal_compression, 3, H, W] in -1..1 -> [B * k, 2 * C, h, w]: means, then log-variances."""
        features = self.frame(F.pixel_unshuffle(groups, self.patch))
        _, channels, height, width = features.shape
        result: Tensor = self.group(features.reshape(-1, self.compression * channels, height, width))
        return result

    def still(self, frames: Tensor) -> Tensor:
        """As `forward` on groups that are one frame each, repeated: [B, 3, H, W] -> [B, 2 * C, h, w]."""
        result: Tensor = self.group(self.frame(F.pixel_unshuffle(frames, self.patch)).repeat(1, self.compression, 1, 1))
        return result


class Decoder(nn.Module):
    """Latents to frames. A latent's frames are distinct channels of one convolution, then mixed along time."""

    def __init__(self, config: NanoVAEConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.compression = config.temporal_compression
        self.phase_width = config.phase_width
        widths = config.decoder_widths
        self.inlet = nn.Conv2d(config.latent_channels, config.latent_width, 3, padding=1)
        self.context = nn.Conv2d(2 * config.latent_width, config.latent_width, 1)
        self.latent = Block(config.latent_width, config.eps)
        self.phases = nn.Sequential(
            ChannelNorm(config.latent_width, config.eps),
            nn.SiLU(),
            nn.Conv2d(config.latent_width, config.temporal_compression * config.phase_width, 3, padding=1),
        )
        self.time = nn.Conv2d(3 * config.phase_width, widths[0], 1)
        layers: list[nn.Module] = []
        for width, finer in pairwise(widths):
            layers += [Block(width, config.eps), nn.Conv2d(width, 4 * finer, 1), nn.PixelShuffle(2)]
        self.frame = nn.Sequential(
            *layers,
            ChannelNorm(widths[-1], config.eps),
            nn.SiLU(),
            nn.Conv2d(widths[-1], 3 * config.patch**2, 3, padding=1),
        )

    def forward(self, latents: Tensor, batch: int, last: int | None = None) -> Tensor:
        """Raw latents [B * k, C, h, w] of `batch` clips -> the last frames [B * last, 3, H, W] of each, or all."""
        x = self.inlet(latents)
        _, _, height, width = x.shape
        clip = x.reshape(batch, -1, x.shape[1], height, width)
        before = torch.cat((clip[:, :1], clip[:, :-1]), dim=1).reshape(x.shape)
        x = self.latent(x + self.context(torch.cat((before, x), dim=1)))
        frames = self.phases(x).reshape(batch, -1, self.phase_width, height, width)
        # Two frames of padding stand before the first latent's last phase: the oldest frame, repeated.
        first = self.compression - 1
        frames = torch.cat((frames[:, first : first + 1], frames[:, first : first + 1], frames[:, first:]), dim=1)
        if last is not None:
            frames = frames[:, -last - 2 :]
        mixed = torch.cat((frames[:, :-2], frames[:, 1:-1], frames[:, 2:]), dim=2).flatten(0, 1)
        x = self.frame(self.time(mixed))
        return F.pixel_shuffle(x, self.patch)


class NanoVAE(nn.Module):
    """Autoencoder between frames and normalised latents.

    `encode` and `decode` are deterministic (posterior mean). Frames are [B, 3, T, H, W] in -1..1 with
    T = temporal_compression * (k - 1) + 1; latents are [B, C, k, H / 32, W / 32] of about unit variance.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: NanoVAEConfig) -> None:
        super().__init__()
        self.config = config.validate()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        channels = config.latent_channels
        mean = torch.tensor(config.latents_mean or (0.0,) * channels).view(1, -1, 1, 1)
        std = torch.tensor(config.latents_std or (1.0,) * channels).view(1, -1, 1, 1)
        self.register_buffer("latents_mean", mean, persistent=False)
        self.register_buffer("latents_std", std, persistent=False)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, T, H, W] in -1..1 -> normalised latents [B, C, k, h, w]; frame 0 alone is latent 0."""
        still = frames[:, :, :1].expand(-1, -1, self.config.temporal_compression, -1, -1)
        return self.encode_groups(torch.cat((still, frames[:, :, 1:]), dim=2))

    def encode_groups(self, frames: Tensor) -> Tensor:
        """Whole groups [B, 3, temporal_compression * k, H, W] in -1..1 -> normalised latents [B, C, k, h, w]."""
        batch = frames.shape[0]
        moments = self.encoder(frames.transpose(1, 2).flatten(0, 1))
        latents = (moments[:, : self.config.latent_channels] - self.latents_mean) / self.latents_std
        result: Tensor = latents.unflatten(0, (batch, -1)).transpose(1, 2)
        return result

    def decode(self, latents: Tensor, last: int | None = None) -> Tensor:
        """Normalised latents [B, C, k, h, w] -> the last frames [B, 3, last, H, W], or all, in about -1..1.

        Earlier latents are context only: the frames before the last ones are not rendered.
        """
        batch = latents.shape[0]
        raw = latents.transpose(1, 2).flatten(0, 1) * self.latents_std + self.latents_mean
        result: Tensor = self.decoder(raw, batch, last).unflatten(0, (batch, -1)).transpose(1, 2)
        return result
