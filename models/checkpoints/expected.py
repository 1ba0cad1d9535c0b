"""The tensors that a published config.json promises, by name and shape, known without PyTorch and without the weights.

What the networks of `dit`, `vae` and `audio_encoder` hold; their tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from rap_edge.runtime.checks.bounds import Count, Whole
from rap_edge.runtime.checks.fields import FieldError, record_from
from rap_edge.runtime.errors import CheckpointError
from rap_edge.runtime.spec import ModelSpec

from ..config import known_fields

Shape = tuple[int, ...]
_Size = Annotated[int, Whole(1, 1 << 17)]
_Few = Annotated[int, Whole(0, 1024)]
_Sizes = Annotated[tuple[_Size, ...], Count(32)]
_Counts = Annotated[tuple[_Few, ...], Count(32)]
_Flags = Annotated[tuple[bool, ...], Count(32)]


@dataclass(frozen=True, kw_only=True)
class _Dit:
    dim: _Size
    in_dim: _Size
    out_dim: _Size
    ffn_dim: _Size
    freq_dim: _Size
    num_layers: _Few
    # FlashHead's key, and ours.
    patch_size: _Sizes = (1, 1, 1)
    patch_side: _Size = 1

    @property
    def patch(self) -> Shape:
        """Latents, rows and columns of a token."""
        return self.patch_size if self.patch_side == 1 else (1, self.patch_side, self.patch_side)


@dataclass(frozen=True, kw_only=True)
class _Wav2Vec2:
    conv_dim: _Sizes = (512,) * 7
    conv_kernel: _Sizes = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    hidden_size: _Size = 768
    num_hidden_layers: _Few = 12
    intermediate_size: _Size = 3072
    num_conv_pos_embeddings: _Size = 128
    num_conv_pos_embedding_groups: _Size = 16


def dit_tensors(config: Mapping[str, Any], spec: ModelSpec, source: str) -> dict[str, Shape]:
    """Those of the DiT that a published config.json and a spec describe.

    Raises:
        CheckpointError: a size is missing or impossible; names `source`.
    """
    sizes = read_sizes(_Dit, config, source)
    dim, width = sizes.dim, spec.feature_layers * spec.feature_width
    hidden = config.get("audio_hidden", 512)
    slots = spec.feature_window + spec.temporal_compression - 1
    found = dict(linear("patch_embedding", dim, sizes.in_dim, *sizes.patch))
    found |= linear("time_embedding.0", dim, sizes.freq_dim) | linear("time_embedding.2", dim, dim)
    found |= linear("time_projection.1", 6 * dim, dim)
    attention = ("self_attn", "cross_attn")
    for block in (f"blocks.{index}" for index in range(sizes.num_layers)):
        found[f"{block}.modulation"] = (1, 6, dim)
        for name in (f"{block}.{kind}.{part}" for kind in attention for part in "qkvo"):
            found |= linear(name, dim, dim)
        found |= {f"{block}.{kind}.norm_{part}.weight": (dim,) for kind in attention for part in "qk"}
        if spec.audio_branches == "separate":
            found |= linear(f"{block}.cross_attn.full_k", dim, dim) | linear(f"{block}.cross_attn.full_v", dim, dim)
            found[f"{block}.cross_attn.norm_full_k.weight"] = (dim,)
        found |= _norm(f"{block}.norm3", dim)
        found |= linear(f"{block}.ffn.0", sizes.ffn_dim, dim) | linear(f"{block}.ffn.2", dim, sizes.ffn_dim)
    found["head.modulation"] = (1, 2, dim)
    found |= linear("head.head", math.prod(sizes.patch) * sizes.out_dim, dim)
    found |= linear("audio_proj.proj1", hidden, spec.feature_window * width)
    found |= linear("audio_proj.proj1_vf", hidden, slots * width)
    found |= linear("audio_proj.proj2", hidden, hidden)
    found |= linear("audio_proj.proj3", spec.audio_tokens * dim, hidden)
    return found | _norm("audio_proj.norm", dim)


def wav2vec2_tensors(config: Mapping[str, Any], source: str) -> dict[str, Shape] | None:
    """Those of the wav2vec 2.0 encoder that a config.json of transformers describes, weight norms folded.

    None where it has parts that no wav2vec 2.0 base or large has.

    Raises:
        CheckpointError: a size is impossible; names `source`.
    """
    if config.get("conv_pos_batch_norm") or config.get("feat_proj_layer_norm") is False:
        return None
    sizes = read_sizes(_Wav2Vec2, config, source)
    if len(sizes.conv_dim) != len(sizes.conv_kernel):
        raise CheckpointError(f"{source} has lists of lengths that do not belong together; download it again.")
    found: dict[str, Shape] = {}
    before, hidden = 1, sizes.hidden_size
    for index, (width, kernel) in enumerate(zip(sizes.conv_dim, sizes.conv_kernel, strict=True)):
        layer = f"feature_extractor.conv_layers.{index}"
        found[f"{layer}.conv.weight"] = (width, before, kernel)
        if sizes.conv_bias:
            found[f"{layer}.conv.bias"] = (width,)
        if index == 0 or config.get("feat_extract_norm") == "layer":
            found |= _norm(f"{layer}.layer_norm", width)
        before = width
    found |= _norm("feature_projection.layer_norm", before) | linear("feature_projection.projection", hidden, before)
    positions = (hidden // sizes.num_conv_pos_embedding_groups, sizes.num_conv_pos_embeddings)
    found |= linear("encoder.pos_conv_embed.conv", hidden, *positions) | _norm("encoder.layer_norm", hidden)
    for layer in (f"encoder.layers.{index}" for index in range(sizes.num_hidden_layers)):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= linear(f"{layer}.attention.{part}", hidden, hidden)
        found |= _norm(f"{layer}.layer_norm", hidden) | _norm(f"{layer}.final_layer_norm", hidden)
        found |= linear(f"{layer}.feed_forward.intermediate_dense", sizes.intermediate_size, hidden)
        found |= linear(f"{layer}.feed_forward.output_dense", hidden, sizes.intermediate_size)
    return found


def read_sizes(cls: type[Any], config: Mapping[str, Any], source: str) -> Any:
    """The sizes `cls` names in a config; raises `CheckpointError`, which names `source`."""
    try:
        return record_from(cls, known_fields(cls, config))
    except FieldError as error:
        raise CheckpointError(f"{source} cannot be read: {error}; download the checkpoint again.") from None


def linear(name: str, *shape: int) -> dict[str, Shape]:
    """Weight and bias of a linear layer, a convolution, or a norm with both."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return linear(name, width)
