"""How near pictures are to others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
EXACT_PSNR = 200.0
"""The PSNR in dB of what is equal."""


def mean_square(pictures: Pictures, others: Pictures) -> float:
    """The mean squared difference of uint8 arrays of one shape [..., H, W, 3]; raises `ValueError` for two shapes."""
    if pictures.ndim <= 3:
        return float(np.square(pictures.astype(np.float32) - others).mean())
    return float(np.mean([mean_square(a, b) for a, b in zip(pictures, others, strict=True)]))


def decibels(error: float) -> float:
    """PSNR in dB of a mean squared difference of 8-bit pixels, at most `EXACT_PSNR`."""
    return EXACT_PSNR if error <= 0.0 else min(EXACT_PSNR, 10.0 * math.log10(255.0**2 / error))


ROUNDED_PSNR = decibels(1.0 / 12.0)
"""The PSNR in dB of what differs by the rounding of pixels alone; what is nearer is not nearer to anything seen."""


def psnr(pictures: Pictures, others: Pictures) -> float:
    """Peak signal-to-noise ratio in dB over all pixels of two uint8 arrays of one shape [..., H, W, 3]."""
    return decibels(mean_square(pictures, others))
