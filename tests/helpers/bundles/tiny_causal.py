"""A causal model small enough for tests: engines in plain numpy whose frames depend on all of their caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from helpers.bundles.tiny import TINY, Body, NumpyEngine, numpy_engines
from numpy.typing import NDArray

from rap_edge.runtime.bundle.contract import audio_state_names
from rap_edge.runtime.spec import Caches, ModelSpec, PortraitMap

TINY_CAUSAL = dataclasses.replace(
    TINY,
    name="tiny-causal",
    spatial_compression=64,
    temporal_compression=4,
    chunk_latents=4,
    carried_latents=0,
    carry="cached",
    feature_window=1,
    attention="block-causal",
    decoder="causal",
    caches=Caches(
        past_latents=3,
        look_ahead=3,
        audio_state=1,
        decoder_state=2,
        portrait_maps=(PortraitMap(channels=2, side=4),),
    ),
).validate()


def causal_engines(spec: ModelSpec = TINY_CAUSAL, **bodies: Body) -> dict[str, NumpyEngine]:
    """Engines in which the picture's brightness follows the sound from its past to what is heard ahead."""
    group, names = spec.temporal_compression, audio_state_names(spec)

    def audio_encoder(b: Mapping[str, NDArray]) -> None:
        loudness = np.abs(b["waveform"][0]).reshape(group, -1).mean(1)
        before = np.concatenate([b["past_audio"][0, :1], loudness[:-1]])
        b["audio_features"][...] = (loudness + 0.5 * before)[:, None, None]
        b["next_audio"][...] = loudness[-1]

    def conditioner(b: Mapping[str, NDArray]) -> None:
        loudness = b["audio_features"][0].mean((1, 2))
        told = np.average(loudness, weights=np.arange(1, len(loudness) + 1))
        for name in names:
            b[name][...] = told

    def dit(b: Mapping[str, NDArray]) -> None:
        known = b["past_known"][0]
        remembered = (b["past_values"][0, 0, :, 0] * known).sum() / max(known.sum(), 1)
        target = b["reference"] + b["audio_value_00"][0, 0, 0] + 0.3 * remembered
        b["velocity"][...] = (0.9 * b["latents"] - target) / max(float(b["timestep"][0]) / 1000.0, 1e-3)
        for name, value in (("keys", 1.0), ("values", b["latents"].mean())):
            b[f"next_{name}"][:, :, :-1] = b[f"past_{name}"][:, :, 1:]
            b[f"next_{name}"][:, :, -1] = value
        b["next_known"][0] = [*known[1:], 1.0]

    def vae_encoder(b: Mapping[str, NDArray]) -> None:
        b["latents"][...] = b["frames"].mean() / 255
        b["portrait_0"][...] = b["frames"].std() / 255

    def vae_decoder(b: Mapping[str, NDArray]) -> None:
        grey = float(b["latents"].mean())
        light = grey + 0.2 * float(b["past_frames"].mean()) + 0.01 * np.arange(group) + float(b["portrait_0"].mean())
        b["magnitude"][...] = abs(grey)
        b["next_frames"][...] = grey
        with np.errstate(invalid="ignore"):
            shown = b["portrait"][0] / 16.0 + 150.0 * light[:, None, None, None]
            b["frames"][...] = np.clip(shown, 0, 255).astype(np.uint8)

    return numpy_engines(spec, (audio_encoder, conditioner, dit, vae_encoder, vae_decoder), bodies)
