"""The LTX-Video VAE, of every version that diffusers reads: 32x32 pixels and 8 frames to one latent cell.

Sources: LTX-Video (arXiv 2501.00103), versions 0.9.0 to 0.9.5, with the parameter names of diffusers'
`AutoencoderKLLTXVideo`. The first frame alone is latent 0; each later latent is `temporal_compression` frames. No noise
is injected where a decoder was trained with it, so that the same latents give the same frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..fresh import draw_weights
from .ltx_blocks import CausalConv3d, DownBlock, MiddleBlock, PixelNorm, TimestepEmbedding, UpBlock
from .ltx_config import LtxVaeConfig

TIMESTEP_SCALE = 1000.0


class Encoder(nn.Module):
    """Frames to the mean of the posterior; the last channel of `conv_out`, its log variance, is dropped."""

    def __init__(self, config: LtxVaeConfig) -> None:
        super().__init__()
        widths, eps, causal = config.block_out_channels, config.resnet_norm_eps, config.encoder_causal
        self.patch_size = config.patch_size
        self.latent_channels = config.latent_channels
        self.conv_in = CausalConv3d(config.in_channels * config.patch_size**2, widths[0], 3, causal=causal)
        self.down_blocks = nn.ModuleList(
            DownBlock(pair, layers, eps, halving=halving, widens=config.widens_when_halving, causal=causal)
            for pair, layers, halving in zip(
                config.encoder_widths, config.layers_per_block[:-1], config.halvings, strict=True
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

    timestep_scale_multiplier: Tensor | None

    def __init__(self, config: LtxVaeConfig) -> None:
        super().__init__()
        first, blocks = config.decoder_block_out_channels[-1], config.decoder_blocks
        layers = config.decoder_layers_per_block[::-1]
        eps, causal = config.resnet_norm_eps, config.decoder_causal
        timestep = config.decode_timestep if config.timestep_conditioning else None
        self.patch_size = config.patch_size
        self.conv_in = CausalConv3d(config.latent_channels, first, 3, causal=causal)
        self.mid_block = MiddleBlock(first, layers[0], eps, causal=causal, timestep=timestep)
        self.up_blocks = nn.ModuleList(
            UpBlock(block, count, eps, causal=causal, timestep=timestep)
            for block, count in zip(blocks, layers[1:], strict=True)
        )
        last = blocks[-1].width
        self.norm_out = PixelNorm()
        self.conv_out = CausalConv3d(last, config.out_channels * config.patch_size**2, 3, causal=causal)
        multiplier = None if timestep is None else torch.tensor(TIMESTEP_SCALE)
        self.register_buffer("timestep_scale_multiplier", multiplier)
        if timestep is not None:
            self.time_embedder = TimestepEmbedding(2 * last, timestep)
            self.scale_shift_table = nn.Parameter(torch.zeros(2, last))

    def forward(self, latents: Tensor) -> Tensor:
        """[B, C, k, h, w] -> [B, 3, T, H, W]."""
        scale = self.timestep_scale_multiplier
        x = self.mid_block(self.conv_in(latents), scale)
        for block in self.up_blocks:
            x = block(x, scale)
        x = self.norm_out(x)
        if scale is not None:
            embedding = self.time_embedder(x.dtype, scale).unflatten(0, (2, -1)) + self.scale_shift_table
            shift, factor = embedding[:, None, :, None, None, None]
            x = x * (1 + factor) + shift
        x = self.conv_out(F.silu(x))
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
        draw_weights(self, generator)
        nn.init.zeros_(self.latents_mean)
        nn.init.ones_(self.latents_std)
        if self.decoder.timestep_scale_multiplier is not None:
            nn.init.constant_(self.decoder.timestep_scale_multiplier, TIMESTEP_SCALE)

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
