"""What the programs of `steps/` share: networks, sound, the host's loop as the oracle, and a table of timed loops."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from device_torch_engine import DeviceTorchEngine, device_torch_engines
from gpu import sound_windows
from numpy.typing import NDArray

from rap_edge.export.parity.check_inputs import drawn_portrait, drawn_speech
from rap_edge.export.parity.compare import compare
from rap_edge.export.sources.network_source import RANDOM_SEED
from rap_edge.models import random_networks
from rap_edge.models.networks import Networks
from rap_edge.models.presets import PRESETS
from rap_edge.runtime.errors import RapEdgeError, first_line
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.loop.interface import Loop, Reference, encode_reference
from rap_edge.runtime.spec import ModelSpec

SEED = 0
HEAD = (
    "| way | ms per chunk, median / p95 | ms per step | RTF | worst chunk against the host's loop | GPU ms by stage "
    "| remark |\n|---|--:|--:|--:|---|---|---|"
)
# What fails must not take the other figures with it.
FAILURES = (RapEdgeError, RuntimeError)
Frames = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Model:
    """A model to measure: its spec, PyTorch's engines of it, and what the host's loop makes of some sound.

    Attributes:
        spec: of the model.
        engines: by graph name, on `device`.
        sounds: float32 [window_samples] of consecutive chunks.
        reference: the drawn portrait.
        expected: frames of these chunks, uint8 [T, H, W, 3].
    """

    spec: ModelSpec
    engines: Mapping[str, DeviceTorchEngine]
    sounds: Sequence[NDArray[np.float32]]
    reference: Reference
    expected: Frames

    @classmethod
    def of(cls, networks: Networks, chunks: int, device: torch.device, dtype: torch.dtype) -> Model:
        """Move networks to the device and render `chunks` chunks with the host's loop over them."""
        spec, engines = networks.spec, device_torch_engines(networks, device, dtype)
        sounds = sound_windows(spec, drawn_speech(spec.sample_rate), chunks)
        reference = encode_reference(spec, engines["vae_encoder"], drawn_portrait(spec.image_size))
        expected = render(ChunkLoop(engines, spec, reference, SEED), sounds, spec.steps)
        return cls(spec, engines, sounds, reference, expected)

    def row(self, name: str, open_loop: Callable[[], Loop], rounds: int) -> str:
        """A line of the table: open a loop, compare its first chunks, time it; or why it cannot be had."""
        try:
            started = time.perf_counter()
            loop = open_loop()
            opened = time.perf_counter() - started
            apart = worst(self.expected, render(loop, self.sounds, self.spec.steps))
            wall, stages = _timed(loop, self.sounds, self.spec.steps, rounds)
        except FAILURES as error:
            return f"| {name} | | | | | | {first_line(error)} |"
        middle, late = statistics.median(wall), float(np.percentile(wall, 95))
        told = ", ".join(f"{stage} {1e3 * seconds:.2f}" for stage, seconds in stages.items())
        return (
            f"| {name} | {1e3 * middle:.2f} / {1e3 * late:.2f} | {1e3 * stages['denoise'] / self.spec.steps:.3f} "
            f"| {middle / self.spec.chunk_seconds:.4f} | {apart} | {told} "
            f"| {' '.join((f'opened in {opened:.2f} s;', *getattr(loop, 'notes', ())))} |"
        )


def networks_of(name: str) -> Networks:
    """Random weights of a preset whose chunks carry latents."""
    return random_networks(PRESETS[name], RANDOM_SEED)


def render(loop: Loop, sounds: Sequence[NDArray[np.float32]], steps: int) -> Frames:
    """The frames of consecutive chunks."""
    found = []
    for sound in sounds:
        loop.waveform[...] = sound
        found.append(loop.render(steps)[0].copy())
    return found


def worst(expected: Frames, found: Frames) -> str:
    """The least PSNR and the largest difference of chunks."""
    fits = [compare(ours, theirs) for ours, theirs in zip(expected, found, strict=True)]
    return f"{min(fit.psnr for fit in fits):.1f} dB, at most {max(fit.max_abs for fit in fits):.0f} codes"


def _timed(
    loop: Loop, sounds: Sequence[NDArray[np.float32]], steps: int, rounds: int
) -> tuple[list[float], dict[str, float]]:
    wall, stages = [], []
    for _ in range(rounds):
        for sound in sounds:
            loop.waveform[...] = sound
            started = time.perf_counter()
            _, seconds = loop.render(steps)
            wall.append(time.perf_counter() - started)
            stages.append(seconds)
    return wall, {name: statistics.median(item[name] for item in stages) for name in stages[0]}
