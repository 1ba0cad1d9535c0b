"""Samples of any type as mono float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError

Samples = NDArray[np.float32]
# Far above full scale, far below what overflows in a filter or a network.
LOUDEST = 1e6
_SCALES = {
    np.dtype(np.uint8): 2.0**7,
    np.dtype(np.int16): 2.0**15,
    np.dtype(np.int32): 2.0**31,
    np.dtype(np.float32): 1.0,
    np.dtype(np.float64): 1.0,
}


class AudioWarning(UserWarning):
    """Audio was used although something about it is odd."""


def to_float(pcm: NDArray[Any]) -> Samples:
    """Mono samples as float32 in -1..1.

    Args:
        pcm: [samples] float32 or float64 in -1..1, int16, int32, or uint8 with its zero at 128.

    Raises:
        AudioError: another dtype or shape, NaN or Inf, or a magnitude that no recording has.
    """
    if pcm.ndim != 1:
        raise AudioError(f"Samples have shape {list(pcm.shape)} instead of [samples]; mix the channels to mono first.")
    return checked(scaled(pcm), "the samples")


def to_mono(samples: Samples) -> Samples:
    """The mean of the channels: float32 [samples, channels] to [samples]."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def to_int16(samples: Samples) -> NDArray[np.int16]:
    """The nearest int16, what is louder than full scale cut off; the inverse of `to_float` for int16."""
    whole: NDArray[np.int16] = np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    return whole


def scaled(pcm: NDArray[Any]) -> Samples:
    """Samples of any supported type as float32, full scale at 1; raises `AudioError` for another type."""
    scale = _SCALES.get(pcm.dtype)
    if scale is None:
        raise AudioError(f"Samples of type {pcm.dtype} are not supported; convert them to float32 or int16.")
    if pcm.dtype.kind == "f":
        # float64 beyond float32's range becomes Inf, which `checked` reports.
        with np.errstate(over="ignore"):
            return pcm.astype(np.float32)
    zero = 128.0 if pcm.dtype.kind == "u" else 0.0
    return ((pcm.astype(np.float64) - zero) / scale).astype(np.float32)


def checked(samples: Samples, where: str) -> Samples:
    """The samples, or `AudioError` naming `where` if any of them is no sound."""
    if samples.size and not np.abs(samples).max() <= LOUDEST:
        what = "a magnitude beyond any sound" if np.isfinite(samples).all() else "NaN or Inf"
        raise AudioError(f"There is {what} in {where}; convert the sound to -1..1 and try again.")
    return samples
