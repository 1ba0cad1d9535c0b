"""The tensors of an LTX-Video VAE of any version as its config describes them, without PyTorch.

A test holds this list to the network itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from rap_edge.runtime.errors import CheckpointError

from ..vaes.ltx_config import STRIDES, DecoderBlock, DownBlockType, Downsampling, LtxVaeConfig
from .expected import Shape, linear

_SINUSOID = 256


def ltx_tensors(config: Mapping[str, Any], source: str) -> dict[str, Shape] | None:
    """Those of the VAE that a config.json of diffusers describes, None for one of a later kind than 0.9.5's.

    Raises:
        CheckpointError: a size is impossible; names `source`.
    """
    kinds = config.get("down_block_types") or ()
    if config.get("patch_size_t", 1) != 1 or (isinstance(kinds, list) and not _known(kinds)):
        return None
    try:
        sizes = LtxVaeConfig.from_diffusers(config, source)
    except CheckpointError as error:
        if str(error).startswith(source):
            raise
        raise CheckpointError(f"{source} cannot be read: {error}") from None
    latents, pixels = sizes.latent_channels, sizes.patch_size**2
    found: dict[str, Shape] = {"latents_mean": (latents,), "latents_std": (latents,)}
    widths = sizes.block_out_channels
    found |= _conv("encoder.conv_in", widths[0], sizes.in_channels * pixels)
    halvings = zip(sizes.encoder_widths, sizes.layers_per_block, sizes.halvings, strict=False)
    for index, (pair, layers, halving) in enumerate(halvings):
        found |= _halving_block(f"encoder.down_blocks.{index}", pair, layers, halving, sizes)
    found |= _residuals("encoder.mid_block", widths[-1], sizes.layers_per_block[-1])
    found |= _conv("encoder.conv_out", latents + 1, widths[-1])
    first, last = sizes.decoder_block_out_channels[-1], sizes.decoder_blocks[-1].width
    conditioned, decoder_layers = sizes.timestep_conditioning, sizes.decoder_layers_per_block[::-1]
    found |= _conv("decoder.conv_in", first, latents)
    found |= _residuals("decoder.mid_block", first, decoder_layers[0], conditioned=conditioned)
    for index, (block, layers) in enumerate(zip(sizes.decoder_blocks, decoder_layers[1:], strict=True)):
        found |= _doubling_block(f"decoder.up_blocks.{index}", block, layers, conditioned=conditioned)
    if conditioned:
        found |= {"decoder.timestep_scale_multiplier": (), "decoder.scale_shift_table": (2, last)}
        found |= _embedder("decoder", 2 * last)
    return found | _conv("decoder.conv_out", sizes.out_channels * pixels, last)


def _known(kinds: list[Any]) -> bool:
    return all(kind in get_args(DownBlockType) for kind in kinds)


def _halving_block(
    block: str, widths: tuple[int, int], layers: int, halving: Downsampling | None, sizes: LtxVaeConfig
) -> dict[str, Shape]:
    before, after = widths
    found = _residuals(block, before, layers)
    if halving is not None and sizes.widens_when_halving and halving != "conv":
        time, side = STRIDES[halving]
        found |= _conv(f"{block}.downsamplers.0.conv", after // (time * side * side), before)
    elif halving is not None:
        found |= _conv(f"{block}.downsamplers.0", before, before)
    if before != after and not sizes.widens_when_halving:
        found |= _widening(f"{block}.conv_out", before, after)
    return found


def _doubling_block(name: str, block: DecoderBlock, layers: int, *, conditioned: bool) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    if block.entry != block.width:
        found |= _widening(f"{name}.conv_in", block.entry, block.width)
    if block.double:
        width = block.width * block.factor
        found |= _conv(f"{name}.upsamplers.0.conv", 8 * width // block.factor, width)
    return found | _residuals(name, block.width, layers, conditioned=conditioned)


def _residuals(block: str, width: int, count: int, *, conditioned: bool = False) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for resnet in (f"{block}.resnets.{index}" for index in range(count)):
        found |= _conv(f"{resnet}.conv1", width, width) | _conv(f"{resnet}.conv2", width, width)
        if conditioned:
            found[f"{resnet}.scale_shift_table"] = (4, width)
    return found | _embedder(block, 4 * width) if conditioned else found


def _embedder(name: str, width: int) -> dict[str, Shape]:
    layers = f"{name}.time_embedder.timestep_embedder"
    return linear(f"{layers}.linear_1", width, _SINUSOID) | linear(f"{layers}.linear_2", width, width)


def _widening(name: str, before: int, after: int) -> dict[str, Shape]:
    found = _conv(f"{name}.conv1", after, before) | _conv(f"{name}.conv2", after, after)
    return found | linear(f"{name}.norm3", before) | _conv(f"{name}.conv_shortcut", after, before, 1)


def _conv(name: str, after: int, before: int, kernel: int = 3) -> dict[str, Shape]:
    return linear(f"{name}.conv", after, before, kernel, kernel, kernel)
