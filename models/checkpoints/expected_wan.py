"""The tensors of Wan 2.1's VAE as its config describes them, without PyTorch.

A test holds this list to the network itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from rap_edge.runtime.checks.bounds import Count, Whole
from rap_edge.runtime.errors import CheckpointError

from .expected import Shape, linear, read_sizes

_Size = Annotated[int, Whole(1, 65536)]


@dataclass(frozen=True, kw_only=True)
class _Wan:
    base_dim: _Size = 96
    decoder_base_dim: _Size | None = None
    z_dim: Annotated[int, Whole(1, 4096)] = 16
    in_channels: Annotated[int, Whole(1, 64)] = 3
    out_channels: Annotated[int, Whole(1, 64)] = 3
    dim_mult: Annotated[tuple[Annotated[int, Whole(1, 64)], ...], Count(8)] = (1, 2, 4, 4)
    num_res_blocks: Annotated[int, Whole(0, 64)] = 2
    temperal_downsample: Annotated[tuple[bool, ...], Count(7)] = (False, True, True)


def wan_tensors(config: Mapping[str, Any], source: str) -> dict[str, Shape] | None:
    """Those of the VAE that a config.json of diffusers describes, None for Wan 2.2's.

    Raises:
        CheckpointError: a size is impossible; names `source`.
    """
    if config.get("is_residual") or config.get("patch_size") is not None or config.get("attn_scales"):
        return None
    sizes = read_sizes(_Wan, config, source)
    if len(sizes.temperal_downsample) != len(sizes.dim_mult) - 1:
        raise CheckpointError(f"{source} has lists of lengths that do not belong together; download it again.")
    latents = sizes.z_dim
    found = _conv("quant_conv", 2 * latents, 2 * latents, (1, 1, 1)) | _conv(
        "post_quant_conv", latents, latents, (1, 1, 1)
    )
    return found | _encoder(sizes) | _decoder(sizes)


def _encoder(sizes: _Wan) -> dict[str, Shape]:
    widths = [sizes.base_dim * times for times in (1, *sizes.dim_mult)]
    found = _conv("encoder.conv_in", widths[0], sizes.in_channels)
    place = 0
    for level, (before, after) in enumerate(pairwise(widths)):
        for width in (before, *(after,) * sizes.num_res_blocks)[: sizes.num_res_blocks]:
            found |= _residual(f"encoder.down_blocks.{place}", width, after)
            place += 1
        if level < len(sizes.temperal_downsample):
            block = f"encoder.down_blocks.{place}"
            found |= linear(f"{block}.resample.1", after, after, 3, 3)
            if sizes.temperal_downsample[level]:
                found |= _conv(f"{block}.time_conv", after, after, (3, 1, 1))
            place += 1
    found |= _middle("encoder.mid_block", widths[-1]) | _gain("encoder.norm_out", widths[-1], 3)
    return found | _conv("encoder.conv_out", 2 * sizes.z_dim, widths[-1])


def _decoder(sizes: _Wan) -> dict[str, Shape]:
    base = sizes.decoder_base_dim or sizes.base_dim
    widths = [base * times for times in (sizes.dim_mult[-1], *sizes.dim_mult[::-1])]
    temporal = sizes.temperal_downsample[::-1]
    found = _conv("decoder.conv_in", widths[0], sizes.z_dim) | _middle("decoder.mid_block", widths[0])
    for level, (before, after) in enumerate(pairwise(widths)):
        block = f"decoder.up_blocks.{level}"
        # The doubling before has halved the channels.
        entries = (before // 2 if level else before, *(after,) * sizes.num_res_blocks)
        for index, width in enumerate(entries):
            found |= _residual(f"{block}.resnets.{index}", width, after)
        if level < len(temporal):
            found |= linear(f"{block}.upsamplers.0.resample.1", after // 2, after, 3, 3)
            if temporal[level]:
                found |= _conv(f"{block}.upsamplers.0.time_conv", 2 * after, after, (3, 1, 1))
    found |= _gain("decoder.norm_out", widths[-1], 3)
    return found | _conv("decoder.conv_out", sizes.out_channels, widths[-1])


def _middle(block: str, width: int) -> dict[str, Shape]:
    attention = f"{block}.attentions.0"
    found = _residual(f"{block}.resnets.0", width, width) | _residual(f"{block}.resnets.1", width, width)
    found |= _gain(f"{attention}.norm", width, 2) | linear(f"{attention}.to_qkv", 3 * width, width, 1, 1)
    return found | linear(f"{attention}.proj", width, width, 1, 1)


def _residual(block: str, before: int, after: int) -> dict[str, Shape]:
    found = _gain(f"{block}.norm1", before, 3) | _conv(f"{block}.conv1", after, before)
    found |= _gain(f"{block}.norm2", after, 3) | _conv(f"{block}.conv2", after, after)
    return found if before == after else found | _conv(f"{block}.conv_shortcut", after, before, (1, 1, 1))


def _gain(name: str, width: int, axes: int) -> dict[str, Shape]:
    return {f"{name}.gamma": (width, *(1,) * axes)}


def _conv(name: str, after: int, before: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> dict[str, Shape]:
    return linear(name, after, before, *kernel)
