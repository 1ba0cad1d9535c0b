"""Wan 2.1's VAE against diffusers' AutoencoderKLWan as an independent reference."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from diffusers import AutoencoderKLWan

from rap_edge.models.checkpoints.published import diffusers_wan_vae
from rap_edge.models.vaes.wan import WanVae, WanVaeConfig
from rap_edge.runtime.errors import CheckpointError

SHAPES = {
    "wan": {"base_dim": 8},
    "other_widths": {
        "base_dim": 4,
        "decoder_base_dim": 6,
        "dim_mult": [1, 2, 3, 3],
        "num_res_blocks": 1,
        "temperal_downsample": [True, False, True],
    },
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def pair(request, tmp_path) -> tuple[AutoencoderKLWan, WanVae]:
    torch.manual_seed(7)
    theirs = AutoencoderKLWan(**request.param).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith(("gamma", "bias")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    return theirs, diffusers_wan_vae(tmp_path)


def statistics(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    mean, deviation = (torch.tensor(values) for values in (vae.config.latents_mean, vae.config.latents_std))
    return mean.view(1, -1, 1, 1, 1), deviation.view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_encode_equals_diffusers_posterior_mode(pair, frames):
    theirs, ours = pair
    video = 2 * torch.rand(2, 3, frames, 32, 48) - 1
    mean, deviation = statistics(theirs)
    with torch.no_grad():
        expected = (theirs.encode(video).latent_dist.mode() - mean) / deviation
        torch.testing.assert_close(ours.encode(video), expected, atol=1e-4, rtol=0)
    assert expected.shape[2] == (frames + 3) // 4


@pytest.mark.parametrize("latents", [2, 4])
def test_decode_equals_diffusers(pair, latents):
    theirs, ours = pair
    drawn = torch.randn(2, 16, latents, 4, 3)
    mean, deviation = statistics(theirs)
    with torch.no_grad():
        expected = theirs.decode(drawn * deviation + mean).sample
        # diffusers clips what it gives.
        torch.testing.assert_close(ours.decode(drawn).clamp(-1.0, 1.0), expected, atol=1e-4, rtol=0)
        assert torch.equal(ours.decode(drawn, 1), ours.decode(drawn)[:, :, -1:])
    assert expected.shape[2] == 4 * (latents - 1) + 1


def test_published_sizes_have_127_million_parameters():
    with torch.device("meta"):
        vae = WanVae(WanVaeConfig())
    assert round(sum(parameter.numel() for parameter in vae.parameters()) / 1e6) == 127
    assert (vae.config.spatial_compression, vae.config.temporal_compression, vae.config.latent_channels) == (8, 4, 16)


def test_a_pickle_alone_is_refused_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"can run code.* convert it first with: python -c .*from_single_file"):
        diffusers_wan_vae(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"_class_name": "AutoencoderKL"}, "only 'AutoencoderKLWan' is supported"),
        ({"is_residual": True}, r"is_residual True and only False is supported; use Wan 2\.1's VAE"),
        ({"patch_size": 2}, "patch_size 2 and only None"),
        ({"attn_scales": [0.5]}, "attn_scales"),
        ({"temperal_downsample": [True]}, "one shorter than dim_mult"),
        ({"z_dim": 8}, "one value for each of the 8 channels"),
        ({"latents_std": [0.0] * 16}, r"latents_std\[0\] must be a number from 1e-06"),
        ({"base_dim": 3, "dim_mult": [1, 1, 1, 1]}, "must be even where it doubles"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        WanVaeConfig.from_diffusers({"base_dim": 8} | changes, "config.json")
