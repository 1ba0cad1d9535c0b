"""`SampleRing`: a lock-free ring of samples between one producer, such as an audio callback, and one consumer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class SampleRing:
    """A preallocated single-producer, single-consumer queue of float32 [samples, channels].

    The producer alone stores `written` and the consumer alone stores `taken`; both only grow, and each is stored after
    the samples have been copied. So neither side waits for the other, and no sample is seen half copied.
    """

    def __init__(self, capacity: int, channels: int) -> None:
        """Hold at most `capacity` samples of every channel; raises `ValueError` where either is less than 1."""
        if capacity < 1 or channels < 1:
            raise ValueError(f"a ring needs room for a sample and a channel, not {capacity} x {channels}")
        self._samples = np.zeros((capacity, channels), np.float32)
        self._written = self._taken = self._dropped = 0

    @property
    def written(self) -> int:
        """Samples that the producer has stored since the start."""
        return self._written

    @property
    def taken(self) -> int:
        """Samples that the consumer has taken since the start."""
        return self._taken

    @property
    def dropped(self) -> int:
        """Samples that found no room since the start."""
        return self._dropped

    def write(self, samples: Samples) -> int:
        """Store float32 [samples, channels], for the producer; what finds no room is dropped and counted.

        Returns:
            The number of samples that were dropped, from the end of `samples`.
        """
        capacity = len(self._samples)
        count = min(len(samples), capacity - (self._written - self._taken))
        start = self._written % capacity
        first = min(count, capacity - start)
        self._samples[start : start + first] = samples[:first]
        self._samples[: count - first] = samples[first:count]
        self._written += count
        dropped = len(samples) - count
        self._dropped += dropped
        return dropped

    def read(self, limit: int | None = None) -> Samples:
        """Take what is there, at most `limit` samples, for the consumer: a fresh float32 [samples, channels]."""
        capacity = len(self._samples)
        count = self._written - self._taken
        if limit is not None:
            count = min(count, limit)
        start = self._taken % capacity
        first = min(count, capacity - start)
        out = np.empty((count, self._samples.shape[1]), np.float32)
        out[:first] = self._samples[start : start + first]
        out[first:] = self._samples[: count - first]
        self._taken += count
        return out
