"""How a head lives: wandering pose, saccades and blinks over any length, in speech and in silence alike.

The pose is counted from the portrait's, with which a clip begins. Rates are those of people at rest: blinks 17 a
minute on average, fixations of half a second to three.
"""

from __future__ import annotations

import numpy as np

from .speech import FRAME_RATE, Floats

POSES = 5
_SPREAD = (0.30, 0.26, 0.28, 0.22, 0.20)  # deviation of yaw, pitch, roll, shift_x and shift_y
_BANDS = ((0.9, 0.85), (0.28, 0.4))  # seconds of smoothing and share of the deviation
_SETTLING = 0.8  # seconds in which a clip leaves the portrait's pose
_CLOSING = (0.35, 0.9, 1.0, 0.95, 0.6, 0.25)  # a blink of a quarter of a second
_LONGER = (0.35, 0.9, 1.0, 1.0, 1.0, 0.95, 0.6, 0.25)


def life(rng: np.random.Generator, frames: int) -> Floats:
    """Motion of a head that begins in the portrait's pose.

    Returns:
        float32 [frames, 8]: yaw, pitch, roll, shift_x, shift_y, blink, gaze_x, gaze_y.
    """
    motion = np.zeros((frames, POSES + 3), np.float64)
    away = 1 - np.exp(-np.arange(frames) / (_SETTLING * FRAME_RATE))
    for column, spread in enumerate(_SPREAD):
        motion[:, column] = away * spread * sum(share * _wander(rng, frames, smooth) for smooth, share in _BANDS)
    motion[:, POSES] = _blinks(rng, frames)
    motion[:, POSES + 1 :] = _gaze(rng, frames)
    return np.asarray(np.clip(motion, -1, 1), np.float32)


def _wander(rng: np.random.Generator, frames: int, seconds: float) -> np.ndarray:
    """White noise smoothed over `seconds`, with a deviation of 1, [frames]."""
    width = seconds * FRAME_RATE
    reach = int(np.ceil(4 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    return np.convolve(rng.normal(size=frames + 2 * reach), kernel, "valid")


def _blinks(rng: np.random.Generator, frames: int) -> np.ndarray:
    track = np.zeros(frames + 16)
    start = int(rng.integers(0, 90))
    while start < frames:
        shape = np.array(_LONGER if rng.random() < 0.15 else _CLOSING)
        track[start : start + len(shape)] = np.maximum(track[start : start + len(shape)], shape)
        # Now and then a second blink follows at once.
        start += int(rng.integers(10, 14)) if rng.random() < 0.08 else int(40 + rng.gamma(2.0, 26.0))
    return track[:frames]


def _gaze(rng: np.random.Generator, frames: int) -> np.ndarray:
    track = np.zeros((frames + 4, 2))
    start, here = int(rng.integers(4, 40)), np.zeros(2)
    while start < frames:
        # Half of the time the eyes come back to whoever looks at them.
        there = rng.normal(0, 0.06, 2) if rng.random() < 0.5 else rng.normal(0, (0.42, 0.28), 2)
        track[start:] = there
        track[start - 1] = 0.5 * (here + there)
        here = there
        start += int(rng.integers(12, 75))
    return np.clip(track[:frames], -1, 1)
