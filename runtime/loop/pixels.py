"""Pixels between decoder, colour matching and encoder, and the frames that are shown.

Pixels are float32 of about -1..1, as the VAE has them: neither rounded nor clipped, so that no chunk inherits either.
Frames are uint8; the last step alone makes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Pixels = NDArray[np.float32]


def to_pixels(frames: Frames) -> Pixels:
    """uint8 to float32 in -1..1, of any shape."""
    pixels: Pixels = frames * np.float32(1.0 / 127.5) - np.float32(1.0)
    return pixels


def to_frames(pixels: Pixels) -> Frames:
    """float32 to uint8, rounded and clipped, of any shape."""
    levels = pixels * np.float32(127.5)
    levels += np.float32(127.5)
    np.rint(levels, out=levels)
    np.clip(levels, 0.0, 255.0, out=levels)
    frames: Frames = levels.astype(np.uint8)
    return frames
