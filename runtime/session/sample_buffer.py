"""The rolling audio of one session: takes any number of samples, gives windows that end at a chunk's end."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class SampleBuffer:
    """Mono samples since the start, of which only the last window and what is not yet used is kept.

    One thread may append while another one reads.
    """

    def __init__(self, window: int) -> None:
        """Keep `window` samples before the last one that was dropped; before the start there is silence."""
        self._window = window
        self._samples = np.zeros(4 * window, np.float32)
        self._filled = window
        self._first = -window
        self._lock = threading.Lock()

    @property
    def end(self) -> int:
        """Samples appended since the start."""
        with self._lock:
            return self._first + self._filled

    def append(self, samples: Samples) -> None:
        """Add float32 samples at the end."""
        with self._lock:
            need = self._filled + samples.size
            if need > self._samples.size:
                grown = np.zeros(max(need, 2 * self._samples.size), np.float32)
                grown[: self._filled] = self._samples[: self._filled]
                self._samples = grown
            self._samples[self._filled : need] = samples
            self._filled = need

    def read(self, start: int, stop: int, out: Samples) -> None:
        """Copy samples start..stop into the start of `out`; what is not there yet is silence."""
        with self._lock:
            low, high = start - self._first, min(stop - self._first, self._filled)
            count = max(high - low, 0)
            out[:count] = self._samples[low : low + count]
            out[count : stop - start] = 0.0

    def drop_before(self, position: int) -> None:
        """Forget the samples that no window ending after `position` can reach."""
        with self._lock:
            surplus = position - self._window - self._first
            # Moving at most half of what is held keeps the cost of a sample constant.
            if surplus * 2 > self._filled:
                keep = self._filled - surplus
                # Shrink after a burst so that one long push does not hold memory for the whole session.
                target = self._samples
                if self._samples.size > 4 * self._window and keep <= 2 * self._window:
                    target = np.zeros(4 * self._window, np.float32)
                target[:keep] = self._samples[surplus : self._filled].copy()
                self._samples, self._filled, self._first = target, keep, self._first + surplus
