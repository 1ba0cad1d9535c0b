"""The config.json of every network that a checkpoint brings, in our layout and in the published ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from helpers.fuzz_targets.mutations import json_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st

from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig
from rap_edge.models.checkpoints.flashhead import flashhead_dit_config
from rap_edge.models.config import config_from_dict, config_to_dict
from rap_edge.models.dit import DiT
from rap_edge.models.nano_vae import NanoVAEConfig
from rap_edge.models.networks import dit_config
from rap_edge.models.presets import FLASHHEAD_LITE, RAP_SMALL
from rap_edge.models.vaes.ltx import LtxVae
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.models.vaes.wan import WanVae, WanVaeConfig
from rap_edge.runtime.errors import CheckpointError

_MOST_LAYERS = 8


def _own(cls: Any, build: Callable[[Any], object] | None = None) -> Callable[[Any], None]:
    def read(data: Any) -> None:
        config = config_from_dict(cls, data, "config.json").validate()
        if build is not None:
            _on_meta(build, config)

    return read


def _on_meta(build: Callable[[Any], object], config: Any) -> None:
    """Make the network without memory; one of many layers takes only time."""
    if getattr(config, "num_layers", getattr(config, "num_hidden_layers", 0)) <= _MOST_LAYERS:
        with torch.device("meta"):
            build(config)


def _flashhead(data: Any) -> None:
    flashhead_dit_config(data, FLASHHEAD_LITE, "config.json")


def _hugging_face(data: Any) -> None:
    _on_meta(AudioEncoder, AudioEncoderConfig.from_hugging_face(data, "config.json"))


def _diffusers(data: Any) -> None:
    _on_meta(LtxVae, LtxVaeConfig.from_diffusers(data, "config.json"))


def _wan(data: Any) -> None:
    _on_meta(WanVae, WanVaeConfig.from_diffusers(data, "config.json"))


_LATER_LTX = LtxVaeConfig(
    block_out_channels=(8, 16, 32, 64, 128),
    down_block_types=("LTXVideo095DownBlock3D",) * 4,
    downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    spatio_temporal_scaling=(True,) * 4,
    decoder_block_out_channels=(16, 32, 64),
    decoder_layers_per_block=(1,) * 4,
    decoder_spatio_temporal_scaling=(True,) * 3,
    upsample_residual=(True,) * 3,
    upsample_factor=(2,) * 3,
    timestep_conditioning=True,
)
_DIT = dit_config(RAP_SMALL, ffn_dim=512)
_PUBLISHED = {name: getattr(dit_config(FLASHHEAD_LITE, ffn_dim=8960), name) for name in ("dim", "in_dim", "out_dim")}
_PUBLISHED |= {"ffn_dim": 8960, "freq_dim": 256, "num_heads": 12, "num_layers": 30, "eps": 1e-6}
_PUBLISHED |= {"patch_size": [1, 1, 1], "has_image_input": False, "vae_stride": [8, 32, 32], "text_dim": 4096}
_SMALL_ENCODER = AudioEncoderConfig(num_hidden_layers=2)

_CASES: tuple[tuple[Any, Callable[[Any], None]], ...] = (
    (config_to_dict(_DIT), _own(type(_DIT), DiT)),
    (config_to_dict(_SMALL_ENCODER), _own(AudioEncoderConfig, AudioEncoder)),
    (config_to_dict(LtxVaeConfig()), _own(LtxVaeConfig, LtxVae)),
    (config_to_dict(NanoVAEConfig()), _own(NanoVAEConfig)),
    (_PUBLISHED, _flashhead),
    ({**config_to_dict(_SMALL_ENCODER), "model_type": "wav2vec2", "hidden_act": "gelu"}, _hugging_face),
    ({**config_to_dict(LtxVaeConfig()), "patch_size_t": 1, "timestep_conditioning": False}, _diffusers),
    (config_to_dict(_LATER_LTX), _diffusers),
    ({**config_to_dict(WanVaeConfig()), "is_residual": False, "attn_scales": []}, _wan),
)


def _read(drawn: tuple[str, Callable[[Any], None]]) -> None:
    text, read = drawn
    data = json.loads(text)
    if not isinstance(data, dict):
        raise CheckpointError("No object.")
    read(data)


CONFIGS = Target(
    "config.json", st.one_of([st.tuples(json_mutants(data), st.just(read)) for data, read in _CASES]), _read
)
