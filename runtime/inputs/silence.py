"""What is silence: digital silence, quiet lines, and the steady noise of a room once it has been heard for a while."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCKS_PER_SECOND = 100
# -60 dB of full scale: below speech at any sensible gain, above the noise that a quiet line or a denoiser leaves.
_ALWAYS_SILENT = 1e-6
# -40 dB: never silence, however steady.
_NEVER_SILENT = 1e-4
# 15 dB: the loudest 10 ms of a low rumble lie so far above its quiet ones; speech stands out further.
_NOISE_SPREAD = 32.0
_MEMORY_SECONDS, _LEARNING_SECONDS = 8, 3
_FLOOR_SHARE = 0.15


class SilenceDetector:
    """Tells silence from speech in one stream, by the power of its 10 ms blocks.

    The noise floor is the level that 15 % of the last 8 s stay below, which pauses between words show under speech
    too. It depends on the samples alone, not on time.
    """

    def __init__(self, rate: int) -> None:
        """For float32 samples in -1..1 at `rate` Hz."""
        self._size = max(rate // _BLOCKS_PER_SECOND, 1)
        # A ring, in no order: the floor does not ask for one.
        self._heard = np.empty(_MEMORY_SECONDS * _BLOCKS_PER_SECOND, np.float32)
        self._count = 0

    def is_silent(self, samples: NDArray[np.float32]) -> bool:
        """Whether there is silence in all of the next [samples]."""
        size = self._size
        padded = np.zeros(-(-samples.size // size) * size, np.float32)
        padded[: samples.size] = samples
        blocks = padded.reshape(-1, size)
        powers = np.einsum("ij,ij->i", blocks, blocks) / size
        # A last block that is not full says nothing of the floor.
        self._remember(powers[: samples.size // size])
        return bool(powers.max(initial=0.0) <= self._limit())

    def _remember(self, powers: NDArray[np.float32]) -> None:
        capacity = len(self._heard)
        powers = powers[-capacity:]
        start = self._count % capacity
        first = min(len(powers), capacity - start)
        self._heard[start : start + first] = powers[:first]
        self._heard[: len(powers) - first] = powers[first:]
        self._count += len(powers)

    def _limit(self) -> float:
        if self._count < _LEARNING_SECONDS * _BLOCKS_PER_SECOND:
            return _ALWAYS_SILENT
        powers = self._heard[: self._count]
        position = _FLOOR_SHARE * (len(powers) - 1)
        below = int(position)
        # As `numpy.percentile`, whose generality costs more than all the rest for every block of a live stream.
        low, high = np.partition(powers, (below, below + 1))[below : below + 2].tolist()
        floor: float = low + (high - low) * (position - below)
        return max(_ALWAYS_SILENT, min(_NOISE_SPREAD * floor, _NEVER_SILENT))
