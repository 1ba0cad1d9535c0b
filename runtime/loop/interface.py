"""What every chunk loop is, on the host or on a device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.contract import chunk_sizes
from ..engines.interface import Engine
from ..errors import NumericalError
from ..spec import ModelSpec
from .carry import LoopState
from .device_frames import DeviceFrames
from .pixels import Frames, to_pixels

STAGES = ("audio_encoder", "conditioner", "denoise", "vae_decoder", "color_match", "vae_encoder")


@dataclass(frozen=True, eq=False)
class Reference:
    """What the loop knows of the portrait; equal to itself alone.

    Attributes:
        portrait: uint8 [H, W, 3].
        latents: float32 [1, C, k, h, w]; of a causal model [1, C, 1, h, w].
        maps: by name, what a causal model's decoder reads besides.
    """

    portrait: Frames
    latents: NDArray[np.float32]
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def encode_reference(spec: ModelSpec, vae_encoder: Engine, portrait: Frames) -> Reference:
    """Encode the portrait once, repeated over a chunk where the encoder takes chunks.

    Raises:
        NumericalError: the encoder gave NaN or Inf.
    """
    execution = vae_encoder.prepare(sizes=chunk_sizes(spec))
    frames = execution.buffers["frames"]
    frames[...] = portrait if frames.dtype == np.uint8 else to_pixels(portrait)
    execution.run()
    found = {name: values for name, values in execution.buffers.items() if name != "frames"}
    for values in found.values():
        require_finite(values, "vae_encoder")
    return Reference(portrait, found.pop("latents"), MappingProxyType(found))


class Loop(Protocol):
    """Renders consecutive chunks of one session; `ChunkLoop` is the one on the CPU."""

    @property
    def state(self) -> LoopState:
        """Where the loop stands: an immutable value, which may be kept and restored; a failed chunk leaves it as is."""

    def restore(self, state: LoopState) -> None:
        """Stand where `state` says; whatever was rendered meanwhile is forgotten.

        Args:
            state: of this loop, or of another one of the same spec.
        """

    @property
    def on_device(self) -> DeviceFrames | None:
        """The last chunk's new frames, uint8 [T, H, W, 3] in a GPU's memory; None without one."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the report should say about how it runs."""

    @property
    def waveform(self) -> NDArray[np.float32]:
        """The buffer that takes the chunk's audio window, float32 [window_samples], before `render`."""

    def render(
        self, steps: int, frame_step: int = 1, features: NDArray[np.float32] | None = None
    ) -> tuple[Frames, dict[str, float]]:
        """Render the next chunk from `waveform`, or from features of the sound where these are there already.

        Args:
            steps: denoise steps; the spec's own number takes the spec's own timesteps.
            frame_step: give every frame_step-th frame only, beginning with the first.
            features: float32 [chunk_frames, feature_window, layers, width]; not for a causal model.

        Returns:
            The chunk's new frames, a fresh uint8 array [ceil(new_frames / frame_step), H, W, 3], and seconds per
            stage.

        Raises:
            NumericalError: a stage gave NaN or Inf; names the stage.
            EngineError: an engine failed.
        """


def frame_windows(spec: ModelSpec) -> NDArray[np.intp]:
    """Feature indices [chunk_frames, feature_window] around each of the window's last frames, clamped to it."""
    half = spec.feature_window // 2
    centres = np.arange(spec.window_frames - spec.chunk_frames, spec.window_frames)
    windows = centres[:, None] + np.arange(-half, half + 1)
    clamped: NDArray[np.intp] = np.clip(windows, 0, spec.window_frames - 1)
    return clamped


def require_finite(values: NDArray[np.floating], stage: str) -> None:
    """Raise `NumericalError` if a value is NaN or Inf."""
    if not np.isfinite(values).all():
        raise not_finite(stage)


def not_finite(stage: str) -> NumericalError:
    """The error of a stage that gave NaN or Inf."""
    return NumericalError(
        f"Stage {stage!r} produced NaN or Inf; export the bundle again with --precision fp32, or check the checkpoint."
    )


class StageClock:
    """Seconds per stage of a chunk."""

    def __init__(self) -> None:
        """Begin now."""
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap belongs to `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now
