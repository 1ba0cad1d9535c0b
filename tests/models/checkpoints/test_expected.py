"""The lists of tensors that are known without PyTorch are those of the networks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.bundles.small import AUDIO_ENCODER, LTX, SMALL, SMALL_GUIDED, WAN
from helpers.bundles.small_causal import EARS, MIND, PICTURES
from torch import nn

from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig
from rap_edge.models.causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder
from rap_edge.models.causal.dit import CausalDiT, CausalDiTConfig
from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig
from rap_edge.models.checkpoints.expected import dit_tensors, wav2vec2_tensors
from rap_edge.models.checkpoints.expected_causal import CAUSAL_TENSORS
from rap_edge.models.checkpoints.expected_ltx import ltx_tensors
from rap_edge.models.checkpoints.expected_wan import wan_tensors
from rap_edge.models.config import config_to_dict
from rap_edge.models.dit import DiT
from rap_edge.models.networks import dit_config, published_configs
from rap_edge.models.presets import FLASHHEAD_LITE
from rap_edge.models.vaes.ltx import LtxVae
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.models.vaes.wan import WanVae, WanVaeConfig
from rap_edge.runtime.errors import CheckpointError


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("spec", [FLASHHEAD_LITE, SMALL, SMALL_GUIDED], ids=lambda spec: spec.name)
def test_those_of_the_dit(spec) -> None:
    config = dit_config(spec, ffn_dim=40, audio_hidden=24)
    with torch.device("meta"):
        assert dit_tensors(config_to_dict(config), spec, "config.json") == shapes(DiT(config))


@pytest.mark.parametrize(
    ("kind", "network", "config"),
    [
        ("dit", CausalDiT, CausalDiTConfig()),
        ("dit", CausalDiT, MIND),
        ("vae", MotionDecoder, MotionDecoderConfig()),
        ("vae", MotionDecoder, PICTURES),
        ("audio_encoder", CausalAudioEncoder, CausalAudioConfig()),
        ("audio_encoder", CausalAudioEncoder, EARS),
    ],
)
def test_those_of_causal_networks(kind: str, network: type[nn.Module], config: object) -> None:
    expected = shapes(network(config))
    assert CAUSAL_TENSORS[kind](config_to_dict(config), "config.json") == expected
    if config == type(config)():
        assert CAUSAL_TENSORS[kind]({}, "config.json") == expected


UNEVEN = dataclasses.replace(
    LTX,
    block_out_channels=(8, 16, 16),
    layers_per_block=(2, 1, 0, 3),
    spatio_temporal_scaling=(True, True, False),
    decoder_block_out_channels=(8, 8, 16),
    decoder_layers_per_block=(1, 0, 2, 1),
    decoder_spatio_temporal_scaling=(True, False, True),
)

# As from 0.9.1 and from 0.9.5 on.
CONDITIONED = LtxVaeConfig(
    block_out_channels=(8, 16, 16),
    layers_per_block=(2, 1, 1, 1),
    spatio_temporal_scaling=(True, True, False),
    decoder_block_out_channels=(8, 16),
    decoder_layers_per_block=(1, 2, 1),
    decoder_spatio_temporal_scaling=(True, True),
    decoder_inject_noise=(True, True, False),
    upsample_residual=(True, True),
    upsample_factor=(2, 2),
    timestep_conditioning=True,
)
FOLDING = dataclasses.replace(
    CONDITIONED,
    block_out_channels=(8, 16, 32),
    down_block_types=("LTXVideo095DownBlock3D",) * 2,
    downsample_type=("spatiotemporal", "spatiotemporal"),
    layers_per_block=(1, 2, 1),
    spatio_temporal_scaling=(True, True),
    timestep_conditioning=False,
)


@pytest.mark.parametrize("config", [published_configs(FLASHHEAD_LITE).vae, LTX, UNEVEN, CONDITIONED, FOLDING])
def test_those_of_the_vae(config: LtxVaeConfig) -> None:
    with torch.device("meta"):
        assert ltx_tensors(config_to_dict(config), "config.json") == shapes(LtxVae(config))


@pytest.mark.parametrize(
    "config",
    [
        WanVaeConfig(),
        WAN,
        WanVaeConfig(base_dim=4, decoder_base_dim=8, dim_mult=(1, 3), temperal_downsample=(True,), num_res_blocks=3),
    ],
)
def test_those_of_wans_vae(config: WanVaeConfig) -> None:
    with torch.device("meta"):
        assert wan_tensors(config_to_dict(config), "config.json") == shapes(WanVae(config))


def test_those_of_wan_2_2_are_not_known_and_lists_must_belong_together() -> None:
    assert wan_tensors({"is_residual": True}, "config.json") is None
    with pytest.raises(CheckpointError, match="lists of lengths that do not belong together"):
        wan_tensors({"dim_mult": [1, 2]}, "config.json")


@pytest.mark.parametrize("changes", [{"patch_size_t": 2}, {"down_block_types": ["LTXVideo2DownBlock3D"]}])
def test_those_of_a_later_vae_are_not_known(changes: dict[str, object]) -> None:
    assert ltx_tensors(changes, "config.json") is None


LARGE = dataclasses.replace(AUDIO_ENCODER, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)


@pytest.mark.parametrize("config", [published_configs(FLASHHEAD_LITE).audio_encoder, AUDIO_ENCODER, LARGE])
def test_those_of_the_audio_encoder(config: AudioEncoderConfig) -> None:
    with torch.device("meta"):
        assert wav2vec2_tensors(config_to_dict(config), "config.json") == shapes(AudioEncoder(config))


@pytest.mark.parametrize(
    ("read", "config"),
    [
        (lambda config: dit_tensors(config, SMALL, "config.json"), {"dim": 8}),
        (lambda config: dit_tensors(config, SMALL, "config.json"), dict.fromkeys(("dim", "in_dim"), 1 << 40)),
        (lambda config: ltx_tensors(config, "config.json"), {"layers_per_block": [1]}),
        (lambda config: ltx_tensors(config, "config.json"), {"block_out_channels": "many"}),
        (lambda config: wav2vec2_tensors(config, "config.json"), {"num_hidden_layers": 10**9}),
        (lambda config: wav2vec2_tensors(config, "config.json"), {"conv_dim": [8]}),
    ],
)
def test_a_config_that_cannot_be_is_a_sentence(read, config) -> None:
    with pytest.raises(CheckpointError, match=r"^config\.json (cannot be read|has lists)"):
        read(config)
