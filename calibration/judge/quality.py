"""How near the frames of one roll-out are to another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rap_edge.export.parity.check_inputs import RealInputs, to_int16
from rap_edge.export.parity.compare import roll_out
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.errors import CalibrationError
from rap_edge.runtime.reports import likeness
from rap_edge.runtime.reports.likeness import decibels
from rap_edge.runtime.spec import ModelSpec

from ..record.clips import Talk

Bytes = NDArray[np.uint8]
_WINDOW = 7
_K1, _K2 = 0.01, 0.03
_LUMA = np.array([0.299, 0.587, 0.114])


def talk_frames(spec: ModelSpec, engines: Mapping[str, Engine], talk: Talk, chunks: int) -> Bytes:
    """Frames of the clip's first chunks, uint8 [T, H, W, 3], through the runtime's loop with its state fed back."""
    inputs = RealInputs(talk.portrait, to_int16(talk.waveform), talk.origin)
    return np.concatenate(list(roll_out(spec, engines, inputs, chunks)))


def talk_chunks(spec: ModelSpec, talk: Talk) -> int:
    """Whole chunks of a clip, at least 1."""
    return max(1, len(talk.waveform) // spec.chunk_samples)


def mean_square(frames: Bytes, reference: Bytes) -> float:
    """Mean squared difference in levels; raises `CalibrationError` if the shapes differ."""
    if frames.shape != reference.shape or frames.size == 0:
        raise CalibrationError(
            f"Frames of shapes {frames.shape} and {reference.shape} cannot be compared; report this."
        )
    return likeness.mean_square(frames, reference)


def psnr(frames: Bytes, reference: Bytes) -> float:
    """PSNR in dB over all pixels of both; raises `CalibrationError` if the shapes differ."""
    return decibels(mean_square(frames, reference))


def ssim(first: Bytes, second: Bytes) -> float:
    """Mean structural similarity of two pictures' luma, uint8 [H, W, 3].

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, with uniform
    windows of 7 x 7 and unbiased variances.
    """
    x, y = first @ _LUMA, second @ _LUMA
    n = _WINDOW * _WINDOW
    mean_x, mean_y = _box(x), _box(y)
    unbiased = n / (n - 1)
    var_x = unbiased * (_box(x * x) - mean_x**2)
    var_y = unbiased * (_box(y * y) - mean_y**2)
    cov = unbiased * (_box(x * y) - mean_x * mean_y)
    c1, c2 = (_K1 * 255.0) ** 2, (_K2 * 255.0) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(similarity.mean())


def mean_ssim(frames: Sequence[Bytes] | Bytes, reference: Sequence[Bytes] | Bytes, every: int) -> float:
    """Mean SSIM of every `every`-th frame."""
    pairs = list(zip(frames, reference, strict=True))[::every]
    return float(np.mean([ssim(a, b) for a, b in pairs]))


def _box(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over windows that lie inside."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    w = _WINDOW
    total = sums[w:, w:] - sums[:-w, w:] - sums[w:, :-w] + sums[:-w, :-w]
    return np.asarray(total / (w * w))
