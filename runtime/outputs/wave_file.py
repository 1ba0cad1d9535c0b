"""Writes sound as a WAV file."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_wave(path: Path, pcm: NDArray[np.int16], rate: int) -> None:
    """Write int16 [samples] of `rate` Hz as 16-bit mono PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
