"""Colour matching: give frames the portrait's mean and deviation in CIE Lab (Reinhard et al. 2001, as FlashHead).

In and out: sRGB pixels, float32 of about -1..1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .pixels import Frames, Pixels, to_pixels

Float = NDArray[np.float32]

_XYZ_FROM_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = np.ascontiguousarray((_XYZ_FROM_RGB / _WHITE[:, None]).T, np.float32)
_FROM_XYZ = np.ascontiguousarray(np.linalg.inv(_XYZ_FROM_RGB / _WHITE[:, None]).T, np.float32)
# CIE's epsilon and kappa; `kernels.cu` has them too.
_EPSILON, _KAPPA = np.float32(0.008856), np.float32(903.3)
# Rounding to 8 bits deviates by about as much; what is flatter has no colour to be stretched. `kernels.cu` has it too.
FLATTEST = np.float32(0.1)


def rgb_to_lab(pixels: Pixels) -> Float:
    """sRGB [..., 3] to CIE Lab (D65) float32 [..., 3]; what is brighter than white or darker than black is clipped."""
    light = (pixels + np.float32(1.0)) * np.float32(0.5)
    power = ((np.maximum(light, np.float32(0.0)) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    linear = np.where(light > 0.04045, power, light / np.float32(12.92))
    xyz = np.clip(linear @ _TO_XYZ, np.float32(1e-8), np.float32(1.0))
    f = np.where(xyz > _EPSILON, np.cbrt(xyz), (_KAPPA * xyz + np.float32(16.0)) / np.float32(116.0))
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1).astype(np.float32)


def lab_to_rgb(lab: Float) -> Pixels:
    """CIE Lab (D65) [..., 3] to sRGB [..., 3] in -1..1, clipped to the gamut."""
    y = (lab[..., 0] + np.float32(16.0)) / np.float32(116.0)
    f = np.stack([y + lab[..., 1] / np.float32(500.0), y, y - lab[..., 2] / np.float32(200.0)], axis=-1)
    cube = f**3
    xyz = np.where(cube > _EPSILON, cube, (np.float32(116.0) * f - np.float32(16.0)) / _KAPPA)
    linear = np.clip(xyz @ _FROM_XYZ, np.float32(0.0), np.float32(1.0))
    power = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    encoded = np.where(linear > 0.0031308, power, np.float32(12.92) * linear)
    pixels: Pixels = encoded * np.float32(2.0) - np.float32(1.0)
    return pixels


def match_tables(portrait: Frames) -> Float:
    """All that matching needs besides the frames, for a GPU's kernels.

    Returns:
        float32 [24]: the matrices RGB to XYZ and back, row by row, for row vectors; the portrait's mean and deviation.
    """
    parts = (_TO_XYZ.ravel(), _FROM_XYZ.ravel(), *_statistics(rgb_to_lab(to_pixels(portrait))))
    return np.concatenate(parts).astype(np.float32)


class ColorMatcher:
    """Pulls frames towards a portrait's Lab mean and deviation."""

    def __init__(self, portrait: Frames, strength: float) -> None:
        """Take the reference from `portrait`, uint8 [H, W, 3]; `strength` lies in 0..1."""
        self._mean, self._deviation = _statistics(rgb_to_lab(to_pixels(portrait)))
        self._strength = np.float32(strength)

    def apply(self, frames: Pixels) -> None:
        """Match every frame of float32 [T, H, W, 3] in place, each by its own mean and deviation."""
        for frame in frames:
            lab = rgb_to_lab(frame)
            mean, deviation = _statistics(lab)
            gain = self._deviation / np.maximum(deviation, FLATTEST)
            matched = ((lab - mean) * gain + self._mean).astype(np.float32, copy=False)
            frame += self._strength * (lab_to_rgb(matched) - frame)


def _statistics(lab: Float) -> tuple[Float, Float]:
    """Mean and deviation of every channel."""
    flat = lab.reshape(-1, 3)
    # Summed in fp32, row after row, a mean would lose its last digits.
    mean, deviation = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
    return mean.astype(np.float32), deviation.astype(np.float32)
