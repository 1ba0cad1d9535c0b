"""Plays sound a fraction of a percent faster or slower: streaming resampling by a ratio that may change at any time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class Stretcher:
    """Catmull-Rom interpolation at a wandering position; at a ratio of 1 samples pass bit for bit, one block later.

    Meant for sound well below half its sample rate, such as speech at 48 kHz, and ratios within a percent of 1.
    """

    def __init__(self, channels: int) -> None:
        """Begin with silence before the first sample."""
        # One sample before the position and two behind it belong to the curve between two samples.
        self._tail = np.zeros((1, channels), np.float32)
        self._position = 1.0

    def push(self, samples: Samples, ratio: float) -> Samples:
        """Add float32 [samples, channels] and give what is ready; `ratio` is input samples per output sample."""
        held = np.concatenate([self._tail, samples])
        last = len(held) - 3
        count = max(int(np.floor((last - self._position) / ratio)) + 1, 0) if last >= self._position else 0
        positions = self._position + ratio * np.arange(count)
        whole = positions.astype(np.intp)
        self._position += ratio * count
        drop = min(max(int(self._position) - 1, 0), len(held))
        self._tail = held[drop:]
        self._position -= drop
        part = (positions - whole).astype(np.float32)[:, None]
        if not part.any():
            exact: Samples = held[whole]
            return exact
        a, b, c, d = held[whole - 1], held[whole], held[whole + 1], held[whole + 2]
        curve: Samples = b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)))
        return curve
