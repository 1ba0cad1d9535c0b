"""Doubt whether a stream of 16 bit samples is one, from how its beginning would sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of every channel; about a second of speech.
_ENOUGH, _TOO_FEW = 1 << 14, 1 << 11
# Magnitudes of floats that are sound; hardly any two 16 bit samples next to each other look like one.
_QUIETEST, _LOUDEST = 1e-9, 4.0
_FLOAT_SHARE = 0.95
# Mean step between neighbours over mean magnitude: 1.3 to 1.4 for white noise, below 1 for what is voiced.
_NOISY, _SMOOTHER = 1.1, 0.5
# Samples of a block that is judged alone, for speech hisses now and then, and the share of blocks that must be odd.
_BLOCK, _SHARE = 256, 0.2


class SampleDoubt:
    """Listens to a stream that is said to be s16le, from its first sample that is not zero on."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._skipped = self._heard = 0
        self._judged = False
        self._kept: list[NDArray[np.int16]] = []

    def push(self, numbers: NDArray[np.int16]) -> str | None:
        """Hear the next [samples * channels]; once there is enough, what speaks against them, if anything does."""
        if self._judged:
            return None
        if not self._kept:
            found = np.flatnonzero(numbers)
            start = int(found[0]) if found.size else numbers.size
            # A float has two halves, and every channel its turn.
            start += -(self._skipped + start) % (2 * self._channels)
            self._skipped += min(start, numbers.size)
            numbers = numbers[start:]
        if numbers.size:
            self._kept.append(numbers)
            self._heard += numbers.size
        return self.verdict() if self._heard >= _ENOUGH * self._channels else None

    def verdict(self) -> str | None:
        """What speaks against what has been heard, as the end of a sentence; None if nothing does, or it was short."""
        if self._judged or self._heard < _TOO_FEW * self._channels:
            return None
        numbers = np.concatenate(self._kept)[: _ENOUGH * self._channels]
        numbers = numbers[: numbers.size - numbers.size % (2 * self._channels)]
        self._judged, self._kept = True, []
        if _are_floats(numbers):
            return "32 bit floats, which need --format f32le"
        if _are_swapped(numbers.reshape(-1, self._channels)):
            return "samples whose two bytes come in the other order, which have to be converted to s16le"
        return None


def _are_floats(numbers: NDArray[np.int16]) -> bool:
    values = np.abs(numbers.view("<f4"))
    values = values[values != 0]
    if values.size < _TOO_FEW // 4:
        return False
    return bool(np.mean((values >= _QUIETEST) & (values <= _LOUDEST)) >= _FLOAT_SHARE)


def _are_swapped(numbers: NDArray[np.int16]) -> bool:
    blocks = numbers[: len(numbers) // _BLOCK * _BLOCK].reshape(-1, _BLOCK, numbers.shape[1])
    found, swapped = _roughness(blocks), _roughness(blocks.byteswap())
    odd, heard = (found > _NOISY) & (swapped < _SMOOTHER * found), found > 0.0
    return bool(odd.sum() > _SHARE * heard.sum())


def _roughness(blocks: NDArray[np.int16]) -> NDArray[np.float32]:
    """Of every block [samples, channels]; 0 where nothing moves."""
    values = blocks.astype(np.float32)
    steps = np.abs(np.diff(values, axis=1)).mean((1, 2))
    sizes = np.abs(values - values.mean(axis=1, keepdims=True)).mean((1, 2))
    roughness: NDArray[np.float32] = steps / np.maximum(sizes, np.float32(1e-6))
    return roughness
