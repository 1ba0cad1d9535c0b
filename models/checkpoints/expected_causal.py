"""As `expected`, of the networks of causal models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any

from rap_edge.runtime.checks.bounds import Count, Whole
from rap_edge.runtime.errors import CheckpointError

from .expected import Shape, linear, read_sizes

# Those of the networks' configs.
_Width = Annotated[int, Whole(1, 262_144)]
_Few = Annotated[int, Whole(1, 1024)]


@dataclass(frozen=True, kw_only=True)
class _Dit:
    channels: _Width = 32
    dim: _Width = 256
    ffn_dim: _Width = 1024
    freq_dim: _Width = 256
    num_layers: _Few = 6
    audio_width: _Width = 256
    audio_frames: _Few = 10
    audio_tokens: _Width = 8
    audio_hidden: _Width = 256


@dataclass(frozen=True, kw_only=True)
class _Decoder:
    latent_channels: _Few = 32
    temporal_compression: _Few = 4
    patch: _Few = 4
    widths: Annotated[tuple[_Few, ...], Count(3)] = (48, 64, 128)
    deep_width: _Few = 160
    code_width: _Few = 96
    state_width: _Few = 128
    motion_columns: _Few = 13


@dataclass(frozen=True, kw_only=True)
class _Audio:
    bands: _Few = 64
    stem: Annotated[tuple[_Width, ...], Count(2)] = (128, 192)
    width: _Width = 256
    dilations: Annotated[tuple[_Width, ...], Count(64)] = (1, 2, 4, 8, 1, 2, 4, 8)
    kernel: _Few = 3
    expansion: _Few = 2


def causal_dit_tensors(config: Mapping[str, Any], source: str) -> dict[str, Shape]:
    """Those of a block-causal DiT; raises `CheckpointError` for an impossible size, which names `source`."""
    sizes = read_sizes(_Dit, config, source)
    dim, hidden = sizes.dim, sizes.audio_hidden
    found = linear("patch_embedding", dim, 2 * sizes.channels)
    found |= linear("time_embedding.0", dim, sizes.freq_dim) | linear("time_embedding.2", dim, dim)
    found |= linear("time_projection.1", 6 * dim, dim)
    for block in (f"blocks.{index}" for index in range(sizes.num_layers)):
        found[f"{block}.modulation"] = (6, dim)
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            for part in "qkvo":
                found |= linear(f"{attention}.{part}", dim, dim)
            found |= {f"{attention}.norm_{part}.weight": (dim,) for part in "qk"}
        found |= linear(f"{block}.norm3", dim)
        found |= linear(f"{block}.ffn.0", sizes.ffn_dim, dim) | linear(f"{block}.ffn.2", dim, sizes.ffn_dim)
    found["head_modulation"] = (2, dim)
    found |= linear("head", sizes.channels, dim)
    found |= linear("audio_proj.0", hidden, sizes.audio_frames * sizes.audio_width)
    found |= linear("audio_proj.2", hidden, hidden) | linear("audio_proj.4", sizes.audio_tokens * dim, hidden)
    return found | linear("audio_norm", dim)


def motion_decoder_tensors(config: Mapping[str, Any], source: str) -> dict[str, Shape]:
    """Those of a motion decoder; raises `CheckpointError` for an impossible size, which names `source`."""
    sizes = read_sizes(_Decoder, config, source)
    if len(sizes.widths) != 3:
        raise CheckpointError(f"{source} needs three widths; correct it.")
    fine, middle, coarse = sizes.widths
    ways, group, state = (*sizes.widths, sizes.deep_width), sizes.temporal_compression, sizes.state_width
    cells = sizes.patch**2
    found = _conv("reference_encoder.inlet", fine, 3 * cells)
    for index, (width, deeper) in enumerate(pairwise(ways)):
        found |= _conv(f"reference_encoder.down.{index}.0", deeper, width)
        found |= _block(f"reference_encoder.down.{index}.1", deeper)
    found |= _block("reference_encoder.whole", sizes.deep_width)
    for index, (width, finer) in enumerate(pairwise(ways[::-1])):
        found |= _finer(f"reference_encoder.up.{index}", width, finer) | _block(f"reference_encoder.mix.{index}", finer)
    found |= linear("motion_encoder.group.0", 2 * state, group * sizes.motion_columns)
    found |= linear("motion_encoder.group.2", 2 * state, 2 * state)
    found |= linear("motion_encoder.group.4", sizes.latent_channels, 2 * state)
    found |= linear("code_decoder.inlet.0", state, sizes.latent_channels)
    found |= linear("code_decoder.inlet.2", state, state)
    found |= linear("code_decoder.codes.1", 3 * state, 2 * state)
    found |= linear("code_decoder.codes.3", group * sizes.code_width, 3 * state)
    for name, width in (("coarse.0", coarse), ("coarse.1", coarse), ("middle", middle), ("fine", fine)):
        found |= _block(f"frame_decoder.{name}", width)
        found |= linear(f"frame_decoder.{name}.style", 2 * width, sizes.code_width)
    found |= _finer("frame_decoder.to_middle", coarse, middle) | _finer("frame_decoder.to_fine", middle, fine)
    found |= _conv("frame_decoder.flow", 2, middle) | _conv("frame_decoder.near_flow", 2, fine)
    found["frame_decoder.out.0.gain"] = (1, fine, 1, 1)
    return found | _conv("frame_decoder.out.2", 4 * cells, fine)


def causal_audio_tensors(config: Mapping[str, Any], source: str) -> dict[str, Shape]:
    """Those of a causal audio encoder; raises `CheckpointError` for an impossible size, which names `source`."""
    sizes = read_sizes(_Audio, config, source)
    if len(sizes.stem) != 2:
        raise CheckpointError(f"{source} needs two numbers in stem; correct it.")
    slow, faster = sizes.stem
    width, inner = sizes.width, sizes.expansion * sizes.width
    found = linear("stem.0.conv", slow, sizes.bands, 5)
    found |= linear("stem.1.conv", faster, slow, 4) | linear("stem.2.conv", width, faster, 4)
    for block in (f"blocks.{index}" for index in range(len(sizes.dilations))):
        found |= linear(f"{block}.norm", width) | linear(f"{block}.conv.conv", inner, width, sizes.kernel)
        found |= linear(f"{block}.out", width, inner, 1)
    return found | linear("norm", width)


CAUSAL_TENSORS: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Shape]]] = MappingProxyType(
    {"dit": causal_dit_tensors, "vae": motion_decoder_tensors, "audio_encoder": causal_audio_tensors}
)
"""By network, what its config promises."""


def _conv(name: str, after: int, before: int, kernel: int = 3) -> dict[str, Shape]:
    return linear(name, after, before, kernel, kernel)


def _block(name: str, width: int) -> dict[str, Shape]:
    convs = _conv(f"{name}.conv1", width, width) | _conv(f"{name}.conv2", width, width)
    return convs | {f"{name}.norm.gain": (1, width, 1, 1)}


def _finer(name: str, width: int, finer: int) -> dict[str, Shape]:
    return _conv(f"{name}.conv", 4 * finer, width, 1)
