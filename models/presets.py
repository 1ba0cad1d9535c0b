"""The models that are known by name, as specs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rap_edge.runtime.errors import SpecError
from rap_edge.runtime.spec import Caches, Framing, ModelSpec, PortraitMap, linear_alpha

FLASHHEAD_LITE = ModelSpec(
    name="flashhead-lite",
    image_size=(512, 512),
    fps=25,
    latent_channels=128,
    spatial_compression=32,
    temporal_compression=8,
    chunk_latents=5,
    carried_latents=2,
    carry="clean",
    solver="renoise",
    timesteps=(1000.0, 750.0, 500.0, 250.0, 0.0),
    shift=5.0,
    guidance_scale=1.0,
    color_match=1.0,
    sample_rate=16000,
    audio_window_seconds=8.0,
    feature_window=5,
    feature_layers=12,
    feature_width=768,
    audio_tokens=32,
    hidden_dim=1536,
    num_heads=12,
    num_layers=30,
    alpha=(1.0,) * 30,
    audio_branches="shared",
    idle_replays=0,
    portrait_resizing="bilinear",
    # Its published code cuts twice the face's box where it is asked to.
    framing=Framing(face_side=0.5),
)

# As Lite, over the VAE of Wan 2.1.
FLASHHEAD_PRO = dataclasses.replace(
    FLASHHEAD_LITE,
    name="flashhead-pro",
    latent_channels=16,
    spatial_compression=8,
    temporal_compression=4,
    chunk_latents=9,
)

# The paper gives k, n, guidance and alpha; steps, shift, fps, tokens and branch sharing are our choice.
RAP_1_3B = dataclasses.replace(
    FLASHHEAD_LITE,
    name="rap-1.3b",
    chunk_latents=11,
    carried_latents=3,
    carry="noisy",
    solver="euler",
    timesteps=(1000.0, 875.0, 750.0, 625.0, 500.0, 375.0, 250.0, 125.0, 0.0),
    guidance_scale=5.0,
    color_match=0.0,
    alpha=linear_alpha(30),
    portrait_resizing="lanczos",
)

# A RAP of a size for trying: it has random weights.
RAP_SMALL = ModelSpec(
    name="rap-small",
    image_size=(256, 256),
    fps=25,
    latent_channels=64,
    spatial_compression=32,
    temporal_compression=8,
    chunk_latents=5,
    carried_latents=2,
    carry="noisy",
    solver="euler",
    timesteps=(1000.0, 750.0, 500.0, 250.0, 0.0),
    shift=1.0,
    guidance_scale=1.0,
    color_match=0.0,
    sample_rate=16000,
    audio_window_seconds=2.0,
    feature_window=5,
    feature_layers=3,
    feature_width=160,
    audio_tokens=8,
    hidden_dim=256,
    num_heads=4,
    num_layers=6,
    alpha=linear_alpha(6),
    audio_branches="shared",
    idle_replays=1,
    framing=Framing(face_side=0.78, face_x=0.495, face_y=0.487),
)

# The model that ships: motion latents over a portrait, causal from the sound to the picture.
NANO = ModelSpec(
    name="nano",
    image_size=(256, 256),
    fps=25,
    latent_channels=32,
    spatial_compression=256,
    temporal_compression=4,
    chunk_latents=6,
    carried_latents=0,
    carry="cached",
    solver="euler",
    # What a head does next is small in a latent and decided late: evenly spaced levels draw too little of it.
    timesteps=(1000.0, 835.0, 670.0, 500.0, 330.0, 165.0, 0.0),
    shift=0.5,
    guidance_scale=1.0,
    color_match=0.0,
    sample_rate=16000,
    audio_window_seconds=2.0,
    feature_window=1,
    feature_layers=1,
    feature_width=256,
    audio_tokens=8,
    hidden_dim=256,
    num_heads=4,
    num_layers=6,
    alpha=(1.0,) * 6,
    audio_branches="shared",
    idle_replays=0,
    attention="block-causal",
    decoder="causal",
    caches=Caches(
        past_latents=30,
        look_ahead=3,
        audio_state=16496,
        decoder_state=128,
        portrait_maps=(
            PortraitMap(channels=48, side=64),
            PortraitMap(channels=64, side=32),
            PortraitMap(channels=128, side=16),
        ),
    ),
    framing=Framing(face_side=0.78, face_x=0.495, face_y=0.487),
)

PRESETS: Mapping[str, ModelSpec] = MappingProxyType(
    {spec.name: spec for spec in (NANO, FLASHHEAD_LITE, FLASHHEAD_PRO, RAP_1_3B, RAP_SMALL)}
)


def load_spec(name_or_file: str) -> ModelSpec:
    """The preset of that name, else the spec in that JSON file.

    Raises:
        SpecError: neither a preset nor a readable, legal spec file.
    """
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]
    try:
        text = Path(name_or_file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise SpecError(
            f"{name_or_file!r} is neither a preset ({', '.join(PRESETS)}) nor a readable spec file; pass one of them."
        ) from None
    return ModelSpec.from_json(text)
