"""Networks small enough to export in a test: both VAE architectures at 64 x 64 pixels, two layers each."""

from __future__ import annotations

import dataclasses

from helpers.bundles.tiny import TINY

from rap_edge.export.parity.check_inputs import RealInputs, drawn_portrait, drawn_speech, to_int16
from rap_edge.models.audio_encoder import AudioEncoderConfig
from rap_edge.models.nano_vae import NanoVAEConfig
from rap_edge.models.networks import NetworkConfigs, Networks, dit_config, random_networks
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.models.vaes.wan import WanVaeConfig
from rap_edge.runtime.spec import ModelSpec

SMALL = dataclasses.replace(TINY, name="small", alpha=(0.3, 1.0))
SMALL_CLEAN = dataclasses.replace(SMALL, name="small-clean", carry="clean", solver="renoise", color_match=1.0)
# FlashHead Pro's patches and compression, with fewer latents.
SMALL_PRO = dataclasses.replace(
    SMALL_CLEAN,
    name="small-pro",
    latent_channels=16,
    spatial_compression=8,
    temporal_compression=4,
    chunk_latents=5,
)
SMALL_GUIDED = dataclasses.replace(
    SMALL, name="small-guided", guidance_scale=2.0, alpha=(0.0, 0.6), audio_branches="separate"
)
AUDIO_ENCODER = AudioEncoderConfig(
    conv_dim=(8,) * 7,
    hidden_size=SMALL.feature_width,
    num_hidden_layers=SMALL.feature_layers,
    num_attention_heads=2,
    intermediate_size=16,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    samples_per_frame=SMALL.samples_per_frame,
)
LTX = LtxVaeConfig(
    latent_channels=SMALL.latent_channels,
    block_out_channels=(8, 8, 8, 16),
    layers_per_block=(1, 1, 1, 1, 1),
    decoder_block_out_channels=(8, 8, 8, 16),
    decoder_layers_per_block=(1, 1, 1, 1, 1),
)
WAN = WanVaeConfig(base_dim=4, num_res_blocks=1)
NANO = NanoVAEConfig(
    latent_channels=SMALL.latent_channels,
    encoder_widths=(8, 8, 8),
    squeeze_width=8,
    latent_width=16,
    phase_width=8,
    decoder_widths=(16, 8, 8, 8),
)


def drawn(spec: ModelSpec) -> RealInputs:
    """A portrait and speech that need no file."""
    return RealInputs(drawn_portrait(spec.image_size), to_int16(drawn_speech(spec.sample_rate)), "drawn")


def small_networks(
    spec: ModelSpec = SMALL, vae: LtxVaeConfig | WanVaeConfig | NanoVAEConfig = NANO, seed: int = 0
) -> Networks:
    """Fresh networks for `spec`; over Wan's VAE the denoiser has patches of 2 x 2 cells, as FlashHead Pro."""
    patch = 2 if isinstance(vae, WanVaeConfig) else 1
    dit = dit_config(spec, ffn_dim=32, freq_dim=8, audio_hidden=16, patch_side=patch)
    return random_networks(spec, seed, configs=NetworkConfigs(dit=dit, vae=vae, audio_encoder=AUDIO_ENCODER))
