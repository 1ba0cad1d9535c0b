"""Measures talking faces from their frames: how far the mouth opens, when, and what else has changed.

The mouth's opening is read from the frames alone: the distance between the upper edge of the upper lip and the lower
edge of the lower lip, less the same distance in a portrait whose mouth is closed. The portrait also tells lips from
their surroundings (a linear discriminant of the colours), so beards, red clothes and any skin are handled alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import MeasureError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

LATENT_FRAMES = 8
OPENING_SHIFT = 47.0  # 1/256 of the side: lip edges part by this much at mouth_open = 1 (fitted on renders)
CLOSED = 0.08

_HALF_BAND = 16.0  # half width of the band of columns that is read, 1/256 of the side
_TOP, _BOTTOM = 150.0, 248.0  # rows that are read, 1/256 of the side


@dataclass(frozen=True)
class MouthGauge:
    """Reads the mouth's opening off the frames of one identity.

    Attributes:
        weights: float32 [3], the direction in RGB that separates lips from their surroundings.
        low, high: projections of the surroundings' lip-like end and of the lips.
        centre: column in the middle of the mouth, pixels.
        closed: distance of the lips' outer edges in the portrait, pixels.
        size: side of the frames, pixels.
    """

    weights: Floats
    low: float
    high: float
    centre: int
    closed: float
    size: int

    @classmethod
    def calibrate(cls, portrait: Bytes, box: Box) -> MouthGauge:
        """Learn an identity's colours.

        Args:
            portrait: uint8 [size, size, 3] RGB with a closed mouth, framed like the training set.
            box: (x0, y0, x1, y1) of its mouth, see `renderer.mouth_box`.

        Raises:
            MeasureError: the picture is not square RGB, the box does not fit in it, or its lips cannot be told from
                the skin.
        """
        if portrait.ndim != 3 or portrait.shape[0] != portrait.shape[1] or portrait.shape[2] != 3:
            raise MeasureError(f"A portrait must be a square RGB picture; got shape {portrait.shape}.")
        size = portrait.shape[0]
        scale = size / 256
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size) or y1 - y0 < 12 * scale:
            raise MeasureError(f"The mouth box {box} does not fit a {size} pixel portrait; take the renderer's box.")
        centre = (x0 + x1) // 2
        pixels = portrait.astype(np.float64)
        inset, near, wide = round(4 * scale), round(14 * scale), round(24 * scale)
        lips = pixels[y0 + inset : y1 - inset, centre - near : centre + near].reshape(-1, 3)
        columns = slice(centre - wide, centre + wide)
        above = pixels[y0 - round(12 * scale) : y0 - round(scale), columns].reshape(-1, 3)
        below = pixels[y1 + round(2 * scale) : min(y1 + round(40 * scale), round(236 * scale)), columns].reshape(-1, 3)
        around = np.concatenate((above, below[::2]))
        spread = (np.cov(lips.T) + np.cov(around.T)) / 2 + 30 * np.eye(3)
        weights = np.linalg.solve(spread, lips.mean(0) - around.mean(0)).astype(np.float32)
        low, high = float(np.quantile(around @ weights, 0.95)), float(np.median(lips @ weights))
        if high <= low:
            raise MeasureError("The portrait's lips have the colour of the skin around them; use another portrait.")
        gauge = cls(weights, low, high, centre, 0.0, size)
        return cls(weights, low, high, centre, gauge._height(portrait), size)

    def opening(self, frames: Bytes) -> Floats:
        """Opening per frame, 0 closed to about 1 wide open.

        Args:
            frames: uint8 [T, size, size, 3] RGB of the same identity.

        Returns:
            float32 [T]; a frame without any lips reads minus the lips' own height.

        Raises:
            MeasureError: the frames have another shape than the portrait.
        """
        if frames.ndim != 4 or frames.shape[1:] != (self.size, self.size, 3):
            raise MeasureError(f"Frames must have shape [T, {self.size}, {self.size}, 3]; got {frames.shape}.")
        full = OPENING_SHIFT * self.size / 256
        return np.array([(self._height(frame) - self.closed) / full for frame in frames], np.float32)

    def _height(self, frame: Bytes) -> float:
        scale = self.size / 256
        half = round(_HALF_BAND * scale)
        rows = slice(round(_TOP * scale), round(_BOTTOM * scale))
        band = frame[rows, self.centre - half : self.centre + half].astype(np.float32)
        score = (cv2.GaussianBlur(band, (0, 0), 0.8 * scale) @ self.weights - self.low) / (self.high - self.low)
        profile = np.clip(score, -0.5, 1.5).mean(1)
        lips = profile > 0.5
        # What reaches the lower end is clothing. Lips are at least 3 pixels thick: anything thinner is noise.
        clothing = len(lips) - int(np.argmin(lips[::-1])) if not lips.all() else 0
        lips[clothing:] = False
        there = np.flatnonzero(lips[:-2] & lips[1:-1] & lips[2:])
        if not len(there):
            return 0.0
        first, last = int(there[0]), int(there[-1]) + 2
        return _crossing(profile, last, 1) - _crossing(profile, first, -1)


def _crossing(profile: Floats, inside: int, step: int) -> float:
    """Where the profile falls through 0.5 between `inside` and its neighbour."""
    outside = inside + step
    if not 0 <= outside < len(profile):
        return float(inside)
    drop = float(profile[inside] - profile[outside])
    return inside + step * float(profile[inside] - 0.5) / drop if drop > 0 else float(inside)


def correlation(measured: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Pearson correlation of two tracks of any equal shape, pooled; 0 where one of them does not move.

    Raises:
        MeasureError: the shapes differ or there are fewer than two values.
    """
    first, second = _pair(measured, truth)
    first, second = first.ravel() - first.mean(), second.ravel() - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale > 1e-9 else 0.0


def lagged_correlation(measured: npt.ArrayLike, truth: npt.ArrayLike, lag: int) -> float:
    """Correlation of measured[..., i + lag] with truth[..., i]; a positive lag says that the picture is late.

    Raises:
        MeasureError: the shapes differ or the lag leaves fewer than two frames.
    """
    first, second = _pair(measured, truth)
    frames = first.shape[-1]
    if abs(lag) > frames - 2:
        raise MeasureError(f"A lag of {lag} frames needs more than {frames} frames; measure a longer clip.")
    if lag < 0:
        return correlation(first[..., :lag], second[..., -lag:])
    return correlation(first[..., lag:], second[..., : frames - lag])


def best_lag(measured: npt.ArrayLike, truth: npt.ArrayLike, reach: int = 5) -> tuple[int, float]:
    """The lag in -reach..reach with the highest correlation, and that correlation."""
    found = {lag: lagged_correlation(measured, truth, lag) for lag in range(-reach, reach + 1)}
    lag = max(found, key=lambda key: (found[key], -abs(key)))
    return lag, found[lag]


def within_latent_correlation(
    measured: npt.ArrayLike, truth: npt.ArrayLike, first: int = 1, group: int = LATENT_FRAMES
) -> float:
    """Correlation of the movement inside each latent's frames, pooled over all latents.

    The mean of every group of `group` frames is removed from both tracks, so a decoder that stores only one mouth
    per latent scores about 0, however well that mouth follows the sound.

    Args:
        measured, truth: [..., T].
        first: frames before the first whole group (1 where the first latent is one frame).
        group: frames per latent.

    Raises:
        MeasureError: the shapes differ or there is no whole group.
    """
    one, two = _pair(measured, truth)
    count = (one.shape[-1] - first) // group
    if count < 1:
        raise MeasureError(f"There is no whole group of {group} frames after frame {first}; measure a longer clip.")
    inside = []
    for track in (one, two):
        groups = track[..., first : first + count * group].reshape(*track.shape[:-1], count, group)
        inside.append(groups - groups.mean(-1, keepdims=True))
    return correlation(*inside)


def psnr_outside(frames: Bytes, truth: Bytes, boxes: npt.NDArray[np.integer[Any]], margin: int = 8) -> float:
    """PSNR in dB of the pixels outside the mouth.

    Args:
        frames, truth: uint8 [T, H, W, 3].
        boxes: [T, 4], (x0, y0, x1, y1) of the mouth; each is widened by `margin` pixels on every side.

    Raises:
        MeasureError: the shapes do not fit or the boxes leave nothing.
    """
    if frames.ndim != 4 or boxes.shape != (len(frames), 4):
        raise MeasureError(f"{frames.shape} frames need one box each; got boxes of shape {boxes.shape}.")
    error = _squared_error(frames, truth)
    outside = np.ones(frames.shape[:3], bool)
    for mask, (x0, y0, x1, y1) in zip(outside, boxes, strict=True):
        mask[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = False
    if not outside.any():
        raise MeasureError("The mouth boxes cover the whole picture; pass the renderer's boxes.")
    return _decibel(error[outside])


def closedness(opening: npt.ArrayLike, truth: npt.ArrayLike, threshold: float = CLOSED) -> float:
    """Share of the silent frames (truth = 0) in which the mouth is open by less than `threshold`.

    Raises:
        MeasureError: the shapes differ or no frame is silent.
    """
    measured, expected = _pair(opening, truth)
    silent = expected == 0
    if not silent.any():
        raise MeasureError("No frame is silent; measure a clip with a pause.")
    return float((measured[silent] < threshold).mean())


def _pair(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != two.shape or one.size < 2:
        raise MeasureError(f"Tracks must have the same shape and at least two values; got {one.shape} and {two.shape}.")
    return one, two


def _squared_error(frames: Bytes, truth: Bytes) -> Floats:
    if frames.shape != truth.shape or frames.size == 0:
        raise MeasureError(f"Pictures must have the same shape and not be empty; got {frames.shape} and {truth.shape}.")
    return np.asarray((frames.astype(np.float32) - truth.astype(np.float32)) ** 2, np.float32)


def _decibel(error: Floats) -> float:
    mean = float(error.mean(dtype=np.float64))
    return 10 * float(np.log10(255**2 / mean)) if mean > 0 else float("inf")


def summary(measured: Sequence[Floats], truth: Sequence[Floats], first: int = 1) -> dict[str, float]:
    """The mouth figures of equally long clips: `correlation`, `best_lag`, `best_lag_correlation`, `within_latent`.

    Args:
        measured, truth: one float [T] per clip.
        first: see `within_latent_correlation`.
    """
    one, two = np.stack(list(measured)), np.stack(list(truth))
    lag, at_lag = best_lag(one, two)
    return {
        "correlation": correlation(one, two),
        "best_lag": float(lag),
        "best_lag_correlation": at_lag,
        "within_latent": within_latent_correlation(one, two, first),
    }
