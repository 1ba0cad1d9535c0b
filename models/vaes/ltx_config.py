"""Sizes of an LTX-Video VAE, of any version that diffusers reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from rap_edge.runtime.checks.bounds import Count, Real, Whole, shown
from rap_edge.runtime.errors import CheckpointError

from ..config import check_config, check_rules, config_from_dict, known_fields

DownBlockType = Literal["LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"]
Downsampling = Literal["conv", "spatial", "temporal", "spatiotemporal"]
# Halvings of time, and of height and width.
STRIDES: Mapping[str, tuple[int, int]] = {
    "conv": (2, 2),
    "spatial": (1, 2),
    "temporal": (2, 1),
    "spatiotemporal": (2, 2),
}
_Widths = Annotated[tuple[Annotated[int, Whole(1, 16384)], ...], Count(16)]
_Layers = Annotated[tuple[Annotated[int, Whole(0, 64)], ...], Count(17)]
_Switches = Annotated[tuple[bool, ...], Count(17)]
T = TypeVar("T")


@dataclass(frozen=True)
class DecoderBlock:
    """Of one decoder block: width that enters and leaves, factor between them where it doubles, and switches."""

    entry: int
    width: int
    factor: int
    residual: bool
    double: bool


@dataclass(frozen=True, kw_only=True)
class LtxVaeConfig:
    """Sizes of an LTX-Video VAE; keys are those of diffusers' config.json, defaults LTX 0.9.0's.

    Of the lists per block, an empty one, or one of equal values, holds for every block.

    Attributes:
        in_channels: channels of a frame.
        out_channels: channels of a decoded frame.
        latent_channels: channels of a latent.
        block_out_channels: widths of the encoder's blocks; from 0.9.5 on, before the first and after every one.
        down_block_types: kind of the encoder's blocks, all alike; 0.9.5's change their width where they halve.
        downsample_type: what a block of 0.9.5 halves, and how.
        layers_per_block: residual blocks in each encoder block, then in the middle.
        spatio_temporal_scaling: whether an encoder block halves.
        decoder_block_out_channels: widths of the decoder's blocks, in the encoder's order.
        decoder_layers_per_block: as `layers_per_block`, in the encoder's order.
        decoder_spatio_temporal_scaling: whether a decoder block doubles, in the encoder's order.
        decoder_inject_noise: whether a decoder block was trained with noise in it, in the encoder's order with the
            middle last; none is drawn here.
        upsample_residual: whether a decoder block adds what it doubles to its output, in the encoder's order.
        upsample_factor: by which a decoder block lowers its width where it doubles, in the encoder's order.
        timestep_conditioning: whether the decoder is told how noisy the latents are.
        decode_timestep: what it is told, in 0..1; 0 says that they are clean.
        patch_size: pixels that are folded into channels along height and width.
        resnet_norm_eps: epsilon of the shortcuts' layer normalisation.
        scaling_factor: factor on normalised latents.
        encoder_causal: whether the encoder's convolutions see no later frame.
        decoder_causal: whether the decoder's do.
    """

    in_channels: Annotated[int, Whole(1, 64)] = 3
    out_channels: Annotated[int, Whole(1, 64)] = 3
    latent_channels: Annotated[int, Whole(1, 4096)] = 128
    block_out_channels: _Widths = (128, 256, 512, 512)
    down_block_types: Annotated[tuple[DownBlockType, ...], Count(16)] = ()
    downsample_type: Annotated[tuple[Downsampling, ...], Count(16)] = ()
    layers_per_block: _Layers = (4, 3, 3, 3, 4)
    spatio_temporal_scaling: _Switches = (True, True, True, False)
    decoder_block_out_channels: _Widths = (128, 256, 512, 512)
    decoder_layers_per_block: _Layers = (4, 3, 3, 3, 4)
    decoder_spatio_temporal_scaling: _Switches = (True, True, True, False)
    decoder_inject_noise: _Switches = ()
    upsample_residual: _Switches = ()
    upsample_factor: Annotated[tuple[Annotated[int, Whole(1, 64)], ...], Count(16)] = ()
    timestep_conditioning: bool = False
    decode_timestep: Annotated[float, Real(0.0, 1.0)] = 0.0
    patch_size: Annotated[int, Whole(1, 64)] = 4
    resnet_norm_eps: Annotated[float, Real(0.0, 1.0)] = 1e-6
    scaling_factor: Annotated[float, Real(1e-6, 1e6)] = 1.0
    encoder_causal: bool = True
    decoder_causal: bool = False

    @property
    def widens_when_halving(self) -> bool:
        """Whether the encoder's blocks are 0.9.5's."""
        return "LTXVideo095DownBlock3D" in self.down_block_types

    @property
    def halvings(self) -> tuple[Downsampling | None, ...]:
        """How each encoder block halves, None where it does not."""
        count = len(self.spatio_temporal_scaling)
        given = self.downsample_type if self.widens_when_halving else ()
        kinds: tuple[Downsampling, ...] = per_block(given, "conv", count)
        return tuple(kind if halve else None for kind, halve in zip(kinds, self.spatio_temporal_scaling, strict=False))

    @property
    def spatial_compression(self) -> int:
        """Pixels per latent cell along height and width."""
        return self.patch_size * math.prod(STRIDES[kind][1] for kind in self.halvings if kind is not None)

    @property
    def temporal_compression(self) -> int:
        """Frames per latent after the first."""
        return math.prod(STRIDES[kind][0] for kind in self.halvings if kind is not None)

    @classmethod
    def from_diffusers(cls, data: Mapping[str, Any], source: str) -> LtxVaeConfig:
        """Read a published `AutoencoderKLLTXVideo` config.json.

        Raises:
            CheckpointError: it describes another VAE, or a value cannot work.
        """
        for key, only in (("_class_name", "AutoencoderKLLTXVideo"), ("patch_size_t", 1)):
            if data.get(key, only) != only:
                raise CheckpointError(
                    f"{source} says {key} {shown(data[key])} and only {only!r} is supported; use an LTX-Video VAE."
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
        encoder_blocks = len(self.block_out_channels) - self.widens_when_halving
        decoder_blocks = len(self.decoder_block_out_channels)
        lists = (
            (self.layers_per_block, encoder_blocks + 1),
            (self.spatio_temporal_scaling, encoder_blocks),
            (self.decoder_layers_per_block, decoder_blocks + 1),
            (self.decoder_spatio_temporal_scaling, decoder_blocks),
        )
        mixed: tuple[tuple[Sequence[object], int], ...] = (
            (self.downsample_type, encoder_blocks),
            (self.upsample_residual, decoder_blocks),
            (self.upsample_factor, decoder_blocks),
        )
        check_rules(
            "LTX VAE",
            (
                encoder_blocks >= 1 and decoder_blocks >= 1 and all(len(found) == count for found, count in lists),
                "the lists of layers must be one longer than the number of blocks and those of scaling as long",
            ),
            (
                all(len(found) == count or len(set(found)) <= 1 for found, count in mixed),
                "downsample_type, upsample_residual and upsample_factor must have one value for every block",
            ),
            (len(set(self.down_block_types)) <= 1, "down_block_types must be all alike"),
        )
        doublings = 2 ** sum(self.decoder_spatio_temporal_scaling)
        check_rules(
            "LTX VAE",
            (
                (self.patch_size * doublings, doublings) == (self.spatial_compression, self.temporal_compression),
                "the decoder must double as often as the encoder halves",
            ),
            *self._width_rules(),
        )
        return self

    def _width_rules(self) -> tuple[tuple[bool, str], ...]:
        fits = True
        if self.widens_when_halving:
            for (before, after), kind in zip(self.encoder_widths, self.halvings, strict=True):
                time, side = STRIDES[kind] if kind is not None and kind != "conv" else (1, 1)
                cells = time * side * side
                fits &= after % cells == 0 and before * cells % after == 0 and (cells > 1 or before == after)
        follows, width = True, self.decoder_block_out_channels[-1]
        for block in self.decoder_blocks:
            # Where the width changes before a block, its first residual block takes what comes in.
            follows &= block.entry in (width, block.width)
            width = width if block.entry == block.width else block.width
            follows &= width == block.width * (block.factor if block.double else 1)
            follows &= not (block.residual and block.double) or (width % 8 == 0 and 8 % block.factor == 0)
            width = block.width
        unconditioned = all(block.entry == block.width for block in self.decoder_blocks)
        return (
            (fits, "block_out_channels must split into the cells that a block of 0.9.5 folds together"),
            (follows, "decoder_block_out_channels and upsample_factor must give every block the width that it takes"),
            (
                unconditioned or not self.timestep_conditioning,
                "timestep_conditioning needs blocks that change their width where they double alone",
            ),
        )

    @property
    def encoder_widths(self) -> tuple[tuple[int, int], ...]:
        """Widths before and after each encoder block."""
        widths = self.block_out_channels
        following = widths[1:] if self.widens_when_halving else (*widths[1:], widths[-1])
        return tuple(zip(widths, following, strict=False))

    @property
    def decoder_blocks(self) -> tuple[DecoderBlock, ...]:
        """The decoder's blocks in the decoder's order."""
        widths = self.decoder_block_out_channels[::-1]
        count = len(widths)
        factors = per_block(self.upsample_factor, 1, count)[::-1]
        residuals = per_block(self.upsample_residual, False, count)[::-1]
        blocks, width = [], widths[0]
        for own, factor, residual, double in zip(
            widths, factors, residuals, self.decoder_spatio_temporal_scaling[::-1], strict=False
        ):
            blocks.append(DecoderBlock(width // factor, own // factor, factor, residual=residual, double=double))
            width = own // factor
        return tuple(blocks)


def per_block(values: tuple[T, ...], default: T, count: int) -> tuple[T, ...]:
    """One value for each of `count` blocks; an empty list, or one of equal values, holds for all."""
    return values if len(values) == count else (values[0] if values else default,) * count
