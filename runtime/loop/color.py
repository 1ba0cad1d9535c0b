"""Colour matching: give frames the portrait's mean and deviation in CIE Lab (Reinhard et al. 2001, as FlashHead).

In and out: uint8 sRGB frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Float = NDArray[np.float32]

_XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float32
)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)
_TO_XYZ = np.ascontiguousarray((_XYZ_FROM_RGB / _WHITE[:, None]).T)
_FROM_XYZ = np.ascontiguousarray(np.linalg.inv(_XYZ_FROM_RGB / _WHITE[:, None]).T.astype(np.float32))
# Rounding to 8 bits deviates by about as much; what is flatter has no colour to be stretched. `kernels.cu` has it too.
FLATTEST = np.float32(0.1)
_CODES = np.arange(256, dtype=np.float64) / 255.0
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)


def rgb_to_lab(frame: Frames) -> Float:
    """uint8 sRGB [..., 3] to CIE Lab (D65) float32 [..., 3]."""
    xyz = _LINEAR[frame] @ _TO_XYZ
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1).astype(np.float32)


def lab_to_rgb(lab: Float) -> Frames:
    """CIE Lab (D65) [..., 3] to uint8 sRGB [..., 3], clipped to the gamut."""
    y = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([y + lab[..., 1] / 500.0, y, y - lab[..., 2] / 200.0], axis=-1)
    xyz = np.where(f > 0.2068966, f**3, (f - 16.0 / 116.0) / 7.787).astype(np.float32)
    rgb = np.clip(xyz @ _FROM_XYZ, 0.0, 1.0)
    encoded = np.where(rgb <= 0.0031308, rgb * 12.92, 1.055 * rgb ** (1 / 2.4) - 0.055)
    codes: Frames = np.rint(encoded * 255.0).astype(np.uint8)
    return codes


def match_tables(portrait: Frames) -> Float:
    """All that matching needs besides the frames, for a GPU's kernels.

    Returns:
        float32 [280]: the matrices RGB to XYZ and back, row by row, for row vectors; the portrait's mean and deviation;
        linear light by code.
    """
    lab = rgb_to_lab(portrait).reshape(-1, 3)
    parts = (_TO_XYZ.ravel(), _FROM_XYZ.ravel(), lab.mean(0), lab.std(0), _LINEAR)
    return np.concatenate(parts).astype(np.float32)


class ColorMatcher:
    """Pulls frames towards a portrait's Lab mean and deviation."""

    def __init__(self, portrait: Frames, strength: float) -> None:
        """Take the reference from `portrait`, uint8 [H, W, 3]; `strength` lies in 0..1."""
        lab = rgb_to_lab(portrait).reshape(-1, 3)
        self._mean, self._deviation, self._strength = lab.mean(0), lab.std(0), np.float32(strength)

    def apply(self, frames: Frames) -> None:
        """Match every frame of uint8 [T, H, W, 3] in place, each by its own mean and deviation."""
        for frame in frames:
            lab = rgb_to_lab(frame)
            flat = lab.reshape(-1, 3)
            gain = self._deviation / np.maximum(flat.std(0), FLATTEST)
            matched = (lab - flat.mean(0)) * gain + self._mean
            frame[...] = lab_to_rgb(lab + self._strength * (matched - lab))
