"""A model small enough for tests: a spec and engines in plain numpy that obey the graph contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from rap_edge.models.presets import RAP_SMALL
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.engines.interface import allocate
from rap_edge.runtime.loop.pixels import to_pixels
from rap_edge.runtime.spec import ModelSpec, linear_alpha

TINY = dataclasses.replace(
    RAP_SMALL,
    name="tiny",
    image_size=64,
    latent_channels=4,
    chunk_latents=4,
    carried_latents=2,
    timesteps=(1000.0, 500.0, 0.0),
    audio_window_seconds=1.0,
    feature_layers=2,
    feature_width=8,
    audio_tokens=2,
    hidden_dim=16,
    num_heads=2,
    num_layers=2,
    alpha=linear_alpha(2),
    idle_replays=0,
)
TINY_CLEAN = dataclasses.replace(TINY, name="tiny-clean", carry="clean", solver="renoise", color_match=1.0)
# FlashHead Pro's chunk: nine latents of four frames, two carried, five frames encoded again, twenty-eight new ones.
TINY_PRO = dataclasses.replace(
    TINY_CLEAN,
    name="tiny-pro",
    spatial_compression=8,
    temporal_compression=4,
    chunk_latents=9,
    audio_window_seconds=1.6,
)
TINY_GUIDED = dataclasses.replace(TINY, name="tiny-guided", guidance_scale=3.0)

Body = Callable[[Mapping[str, NDArray]], None]


class NumpyExecution:
    def __init__(self, buffers: dict[str, NDArray], body: Body) -> None:
        self.buffers, self._body = buffers, body

    def run(self) -> None:
        self._body(self.buffers)

    def capture(self) -> str:
        return "numpy captures nothing"


class NumpyEngine:
    """An engine whose graph is a Python function over the buffers."""

    backend, device = "numpy", "CPU"

    def __init__(self, graph: GraphInfo, body: Body) -> None:
        self.graph, self._body = graph, body

    def prepare(self, buffers=None, sizes=None) -> NumpyExecution:
        return NumpyExecution(allocate(self.graph, buffers, sizes), self._body)


def numpy_engines(spec: ModelSpec, default: Iterable[Body], bodies: Mapping[str, Body]) -> dict[str, NumpyEngine]:
    """An engine for every graph, from the functions that are called like it or those that stand in for them."""
    named = {body.__name__: body for body in default} | dict(bodies)
    return {
        name: NumpyEngine(GraphInfo(f"{name}.onnx", *signature), named[name])
        for name, signature in contract(spec, "float32").items()
    }


def tiny_engines(spec: ModelSpec, **bodies: Body) -> dict[str, NumpyEngine]:
    """Engines in which the picture's brightness follows the loudness of its own frame's audio."""
    per_frame = spec.samples_per_frame

    def audio_encoder(b: Mapping[str, NDArray]) -> None:
        loudness = np.abs(b["waveform"][0]).reshape(spec.window_frames, per_frame).mean(1)
        b["audio_features"][...] = loudness[:, None, None]

    def conditioner(b: Mapping[str, NDArray]) -> None:
        centre = b["audio_features"][:, :, spec.feature_window // 2].mean((2, 3))
        tokens = centre[:, :: spec.temporal_compression].repeat(spec.audio_tokens, 1)
        for name, state in b.items():
            if name != "audio_features":
                state[...] = tokens[:, :, None]

    def dit(b: Mapping[str, NDArray]) -> None:
        level = b["audio_value_00"][:, :: spec.audio_tokens, 0]
        target = b["reference"] + level[:, None, :, None, None]
        t = max(float(b["timestep"][0]) / 1000.0, 1e-3)
        b["velocity"][...] = (b["latents"] - target) / t

    def vae_encoder(b: Mapping[str, NDArray]) -> None:
        stride, (rows, columns) = spec.temporal_compression, spec.latent_size
        kept = b["frames"][::stride][: b["latents"].shape[2]]
        kept = to_pixels(kept) if kept.dtype == np.uint8 else kept
        blocks = kept.reshape(len(kept), rows, spec.spatial_compression, columns, spec.spatial_compression, 3)
        b["latents"][...] = blocks.mean((2, 4, 5))[None, None]

    def vae_decoder(b: Mapping[str, NDArray]) -> None:
        grey = b["latents"][0].mean(0)
        b["magnitude"][...] = np.abs(grey).mean()
        times = -(-np.arange(spec.chunk_frames) // spec.temporal_compression)[-spec.decoded_frames :]
        big = grey[times].repeat(spec.spatial_compression, 1).repeat(spec.spatial_compression, 2)
        with np.errstate(invalid="ignore"):
            codes = spec.frames_dtype == "uint8"
            b["frames"][...] = (np.clip((big + 1) * 127.5, 0, 255).astype(np.uint8) if codes else big)[..., None]

    return numpy_engines(spec, (audio_encoder, conditioner, dit, vae_encoder, vae_decoder), bodies)
