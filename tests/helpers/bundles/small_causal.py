"""Causal networks small enough to export in a test: 64 x 64 pixels, two layers each."""

from __future__ import annotations

import dataclasses

import torch
from helpers.bundles.tiny_causal import TINY_CAUSAL

from rap_edge.models.causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder
from rap_edge.models.causal.dit import CausalDiT, CausalDiTConfig
from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig
from rap_edge.models.causal.networks import CausalNetworks, caches_of, check_causal_agreement
from rap_edge.runtime.spec import ModelSpec

PICTURES = MotionDecoderConfig(
    latent_channels=4, image_size=64, widths=(8, 8, 12), deep_width=16, code_width=8, state_width=12
)
EARS = CausalAudioConfig(bands=16, stem=(12, 12), width=16, dilations=(1, 2))
MIND = CausalDiTConfig(
    channels=4, dim=16, ffn_dim=32, freq_dim=8, num_heads=2, num_layers=2, past=3, audio_width=16, audio_tokens=2,
    audio_hidden=16,
)  # fmt: skip


def small_causal_networks(seed: int = 0, mind: CausalDiTConfig = MIND, **changes: object) -> CausalNetworks:
    """Fresh networks whose spec is `TINY_CAUSAL`'s with their sizes, and `changes`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dit, decoder, encoder = CausalDiT(mind), MotionDecoder(PICTURES), CausalAudioEncoder(EARS)
        torch.nn.init.normal_(decoder.frame_decoder.flow.weight, std=0.3)
    spec: ModelSpec = dataclasses.replace(
        TINY_CAUSAL,
        name="small-causal",
        feature_layers=1,
        feature_width=EARS.width,
        hidden_dim=mind.dim,
        num_heads=mind.num_heads,
        audio_tokens=mind.audio_tokens,
        caches=caches_of(dit, PICTURES, encoder),
        **changes,
    ).validate()
    return check_causal_agreement(CausalNetworks(spec, dit.eval(), decoder.eval(), encoder.eval()))
