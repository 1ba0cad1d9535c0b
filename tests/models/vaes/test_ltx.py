"""The LTX VAE against diffusers' AutoencoderKLLTXVideo as an independent reference."""

from __future__ import annotations

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo
from helpers.bundles.diffusers_vae import reference_vae

from rap_edge.models.checkpoints.published import diffusers_ltx_vae
from rap_edge.models.vaes.ltx import LtxVae
from rap_edge.models.vaes.ltx_blocks import CausalConv3d, PixelNorm
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.runtime.errors import CheckpointError

# The decoder of 0.9.1 and later: three blocks that lower their width where they double, told how noisy latents are.
LATER_DECODER = {
    "decoder_block_out_channels": (16, 32, 64),
    "decoder_layers_per_block": (1, 2, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}
V095 = LATER_DECODER | {
    "block_out_channels": (8, 16, 32, 64, 128),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "layers_per_block": (1, 1, 2, 1, 1),
    "spatio_temporal_scaling": (True, True, True, True),
    "decoder_inject_noise": (False,) * 4,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
SHAPES = {
    "ltx": {},
    "two_levels": {
        "block_out_channels": (8, 16),
        "layers_per_block": (1, 2, 1),
        "spatio_temporal_scaling": (True, False),
        "patch_size": 2,
        "encoder_causal": False,
        "decoder_causal": True,
    },
    "equal_widths": {"block_out_channels": (8, 8, 8, 8), "resnet_norm_eps": 1e-3, "scaling_factor": 0.5},
    "0.9.1": LATER_DECODER,
    "0.9.1_causal_decoder": LATER_DECODER | {"encoder_causal": False, "decoder_causal": True},
    "0.9.5": V095,
    "0.9.5_unconditioned": V095 | {"timestep_conditioning": False, "upsample_residual": (False,) * 3},
}
TIMESTEP = 0.05


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def pair(request, tmp_path) -> tuple[AutoencoderKLLTXVideo, LtxVae]:
    theirs = reference_vae(**request.param)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"decode_timestep": TIMESTEP}))
    return theirs, diffusers_ltx_vae(tmp_path)


def statistics(vae: AutoencoderKLLTXVideo) -> tuple[torch.Tensor, torch.Tensor]:
    return vae.latents_mean.view(1, -1, 1, 1, 1), vae.latents_std.view(1, -1, 1, 1, 1)


def test_encode_equals_diffusers_posterior_mode(pair):
    theirs, ours = pair
    frames = 2 * torch.rand(2, 3, 9, 64, 32) - 1
    mean, deviation = statistics(theirs)
    with torch.no_grad():
        mode = theirs.encode(frames).latent_dist.mode()
        expected = (mode - mean) * theirs.config.scaling_factor / deviation
        torch.testing.assert_close(ours.encode(frames), expected, atol=1e-4, rtol=0)


def test_decode_equals_diffusers(pair):
    theirs, ours = pair
    latents = torch.randn(2, 6, 3, 2, 1)
    mean, deviation = statistics(theirs)
    with torch.no_grad():
        told = torch.full((2,), TIMESTEP) if theirs.config.timestep_conditioning else None
        expected = theirs.decode(latents * deviation / theirs.config.scaling_factor + mean, temb=told).sample
        torch.testing.assert_close(ours.decode(latents), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [{}, V095], ids=["0.9.0", "0.9.5"])
def test_a_fresh_network_of_any_version_encodes_and_decodes(shape):
    vae = LtxVae(LtxVaeConfig.from_diffusers({"latent_channels": 6, "block_out_channels": [8, 8, 8, 8]} | shape, "-"))
    assert (vae.config.spatial_compression, vae.config.temporal_compression) == (32, 8)
    with torch.no_grad():
        latents = vae.encode(2 * torch.rand(1, 3, 9, 64, 64) - 1)
        frames = vae.decode(latents)
    assert (latents.shape, frames.shape) == ((1, 6, 2, 2, 2), (1, 3, 9, 64, 64))
    assert frames.std() > 1e-3


def test_the_first_frame_alone_makes_the_first_latent_of_a_causal_encoder():
    config = LtxVaeConfig(latent_channels=6, block_out_channels=(4, 6, 6, 6), decoder_block_out_channels=(4, 6, 6, 6))
    vae = LtxVae(config)
    frames = 2 * torch.rand(1, 3, 9, 64, 64) - 1
    torch.testing.assert_close(vae.encode(frames)[:, :, :1], vae.encode(frames[:, :, :1]), atol=1e-4, rtol=0)


def test_published_sizes_have_180_and_239_million_parameters():
    with torch.device("meta"):
        vae = LtxVae(LtxVaeConfig())
    counts = [sum(p.numel() for p in half.parameters()) for half in (vae.encoder, vae.decoder)]
    assert [round(count / 1e6) for count in counts] == [180, 239]


def test_pixel_norm_survives_fp16_values_whose_squares_overflow():
    x = torch.full((1, 4, 1, 1, 1), 6e4, dtype=torch.float16)
    assert torch.equal(PixelNorm()(x), torch.ones_like(x))


@pytest.mark.parametrize("causal", [True, False])
def test_conv_is_a_sum_of_2d_convolutions_over_shifted_frames(causal):
    conv = CausalConv3d(3, 5, 3, causal=causal)
    x = torch.randn(1, 3, 4, 6, 7)
    padded, weight = conv.pad_time(x), conv.conv.weight
    expected = conv.conv.bias.view(1, -1, 1, 1, 1).expand(1, 5, 4, 6, 7).clone()
    for shift in range(3):
        frames = padded[:, :, shift : shift + 4].transpose(1, 2).flatten(0, 1)
        part = torch.nn.functional.conv2d(frames, weight[:, :, shift], padding=1)
        expected += part.unflatten(0, (1, 4)).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timestep_conditioning": True}, "timestep_conditioning needs blocks that change their width where they dou"),
        ({"down_block_types": ["LTXVideo095DownBlock3D"] * 4}, "lists of layers must be one longer"),
        ({"down_block_types": ["LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"]}, "lists of layers"),
        ({"down_block_types": ["CogVideoXDownBlock3D"]}, r"down_block_types\[0\] must be one of LTXVideoDownBlock3D"),
        ({"upsample_factor": [2, 2, 2, 2]}, "must give every block the width that it takes"),
        ({"upsample_factor": [2, 1]}, "must have one value for every block"),
        (V095 | {"block_out_channels": [8, 16, 32, 64, 100]}, "must split into the cells"),
        ({"decoder_spatio_temporal_scaling": [True, True, False, False]}, "must double as often"),
        ({"patch_size_t": 2}, "patch_size_t 2 and only 1 is supported"),
        ({"_class_name": "AutoencoderKLCogVideoX"}, "use an LTX-Video VAE"),
        ({"layers_per_block": [1, 1]}, "lists of layers must be one longer"),
        ({"latent_channels": 0}, "latent_channels must be a whole number from 1"),
        ({"encoder_causal": "yes"}, "encoder_causal must be true or false"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        LtxVaeConfig.from_diffusers(changes, "config.json")
