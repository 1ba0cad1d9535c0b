"""What the chunks of a sound hear whose features are encoded at once, as FlashHead's published code calls it.

In: all samples of a session. Out: every chunk's features. A rolling window gives a chunk what was said before; here it
knows what comes after as well, and the sound's mean and variance are those of the whole.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..loop.interface import require_finite
from ..spec import ModelSpec
from .sample_buffer import SampleBuffer

Features = NDArray[np.float32]


class Encoder(Protocol):
    """Encodes a whole sound: a `SoundEncoder`."""

    def require(self, frames: int) -> None:
        """Raise `AudioError` if the sound of so many frames is too long."""

    def encode(self, waveform: NDArray[np.float32]) -> Features:
        """float32 [samples], whole frames, to float32 [frames, layers, width]."""


class WholeSound:
    """The sound of one session, and its features once it has ended."""

    def __init__(self, spec: ModelSpec, encoder: Encoder) -> None:
        """Encode with `encoder`."""
        self._spec, self._encoder = spec, encoder
        self._features: Features | None = None

    def require(self, samples: int) -> None:
        """Refuse a sound of so many samples if it is too long; raises `AudioError`."""
        self._encoder.require(self._frames(samples))

    def features(self, index: int, sound: SampleBuffer) -> Features:
        """What a chunk hears, float32 [chunk_frames, feature_window, layers, width].

        Args:
            index: of the chunk.
            sound: all of the session's, which has ended; it is read the first time.

        Raises:
            NumericalError: the encoder gave NaN or Inf.
            EngineError: it failed.
        """
        spec = self._spec
        if self._features is None:
            self._features = self._encoded(sound)
        half = spec.feature_window // 2
        centres = index * spec.new_frames + np.arange(spec.chunk_frames)
        windows = centres[:, None] + np.arange(-half, half + 1)
        seen: Features = self._features[np.clip(windows, 0, len(self._features) - 1)]
        return seen

    def _encoded(self, sound: SampleBuffer) -> Features:
        spec, frames = self._spec, self._frames(sound.end)
        waveform = np.empty(frames * spec.samples_per_frame, np.float32)
        # The first chunk spans frames before the sound, as every chunk spans those that it carries.
        start = -spec.carried_frames * spec.samples_per_frame
        sound.read(start, start + waveform.size, waveform)
        features = self._encoder.encode(waveform)
        require_finite(features, "audio_encoder")
        return features

    def _frames(self, samples: int) -> int:
        """Of all chunks that so many samples make, the carried ones before the first included."""
        spec = self._spec
        return spec.carried_frames + -(-samples // spec.chunk_samples) * spec.new_frames
