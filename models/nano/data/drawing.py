"""Anti-aliased and soft shapes on an RGB picture: what nano's portraits are drawn with.

Coordinates are in units of 1/256 of the picture side, x to the right and y down. The canonical canvas reaches
`MARGIN` beyond the picture on every side, or `WIDE_MARGIN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]

MARGIN = 16.0  # canonical canvas reaches this far beyond the picture on every side
WIDE_MARGIN = 128.0  # and this far for a picture in which the face is smaller or elsewhere
OVERSAMPLE = 1.5  # canonical pixels per output pixel


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """The first colour at amount 0, the second at 1."""
    r, g, b = (a + (c - a) * amount for a, c in zip(first, second, strict=True))
    return r, g, b


def scaled(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour, at most white."""
    r, g, b = (min(255.0, value * factor) for value in colour)
    return r, g, b


def smoothstep(value: Any, start: float, end: float) -> Any:
    """0 up to `start`, 1 from `end` on, smooth between; numbers or arrays."""
    t = np.clip((value - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def shifted(points: npt.NDArray[np.floating[Any]], x: float, y: float) -> Floats:
    """Points [..., 2] moved by (x, y)."""
    return np.asarray(points + np.array((x, y)), np.float32)


def fill(image: Bytes, points: Floats, colour: Colour | int, scale: float, offset: tuple[float, float]) -> None:
    """Fill the polygon [n, 2] with anti-aliased edges, in place."""
    value = colour if isinstance(colour, tuple) else (float(colour),)
    cv2.fillPoly(image, [_polygon(points, scale, offset)], value, cv2.LINE_AA, 4)


def curve(points: Sequence[tuple[float, float]], closed: bool = True, steps: int = 10) -> Floats:
    """Catmull-Rom curve through the points, float32 [n, 2]."""
    knots = np.asarray(points, np.float32)
    padded = np.concatenate((knots[-1:], knots, knots[:2]) if closed else (knots[:1], knots, knots[-1:]))
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[:, None]
    pieces = []
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        pieces.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    if not closed:
        pieces.append(knots[-1:])
    return np.concatenate(pieces).astype(np.float32)


def ellipse(x: float, y: float, rx: float, ry: float, points: int = 48) -> Floats:
    """Points around (x, y), float32 [points, 2]."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack((x + rx * np.cos(angle), y + ry * np.sin(angle)), -1).astype(np.float32)


def rounded_box(x: float, y: float, rx: float, ry: float) -> Floats:
    """Points of a box with round corners around (x, y), float32 [64, 2]."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack(
        (x + rx * np.sign(cosine) * np.abs(cosine) ** 0.5, y + ry * np.sign(sine) * np.abs(sine) ** 0.5), -1
    ).astype(np.float32)


class Canvas:
    """A float32 RGB picture of the canonical square with anti-aliased, optionally soft, filled shapes."""

    def __init__(self, size: int, margin: float = MARGIN) -> None:
        self.scale, self.margin = OVERSAMPLE * size / 256, margin
        self.side = round((256 + 2 * margin) * self.scale)
        self.pixels: Floats = np.zeros((self.side, self.side, 3), np.float32)
        axis = (np.arange(self.side // 4, dtype=np.float32) + 0.5) * 4 / self.scale - margin
        self.x, self.y = np.meshgrid(axis, axis)

    def enlarge(self, low: npt.NDArray[np.floating[Any]]) -> Floats:
        """A quarter-size map as a full-size one, smoothly."""
        return np.asarray(
            cv2.resize(low.astype(np.float32), (self.side, self.side), interpolation=cv2.INTER_CUBIC), np.float32
        )

    def blend(
        self,
        shape: Floats,
        colour: Colour | Floats,
        soft: float = 0.0,
        opacity: float = 1.0,
        inside: Floats | None = None,
    ) -> None:
        """Fill a polygon; `soft` is the standard deviation of its edge, `inside` a full-size mask that clips it."""
        reach = 3 * soft + 2
        low = np.floor((shape.min(0) - reach + self.margin) * self.scale).astype(int).clip(0, self.side - 1)
        high = np.ceil((shape.max(0) + reach + self.margin) * self.scale).astype(int).clip(1, self.side)
        if (high <= low).any():
            return
        mask = self.mask(shape, soft, tuple(low), tuple(high))
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        if inside is not None:
            mask = mask * inside[window]
        paint = colour[window] if isinstance(colour, np.ndarray) else np.asarray(colour, np.float32)
        area = self.pixels[window]
        area += (mask * opacity)[..., None] * (paint - area)

    def mask(self, shape: Floats, soft: float, low: tuple[int, ...], high: tuple[int, ...]) -> Floats:
        """Coverage in 0..1 of the pixel window low..high."""
        width, height = high[0] - low[0], high[1] - low[1]
        image = np.zeros((height * 2, width * 2), np.uint8)
        offset = (low[0] / self.scale - self.margin, low[1] / self.scale - self.margin)
        fill(image, shape, 255, self.scale * 2, offset)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        coverage = np.asarray(small, np.float32) / np.float32(255)
        if soft == 0:
            return coverage
        return np.asarray(cv2.GaussianBlur(coverage, (0, 0), soft * self.scale), np.float32)

    def full_mask(self, shape: Floats, soft: float = 0.0) -> Floats:
        """Coverage in 0..1 of the whole canvas."""
        return self.mask(shape, soft, (0, 0), (self.side, self.side))

    def bump(self, x: float, y: float, rx: float, ry: float) -> Floats:
        """Quarter-size Gaussian with its centre at (x, y)."""
        return np.asarray(np.exp(-0.5 * (((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2)), np.float32)


def _polygon(points: Floats, scale: float, offset: tuple[float, float]) -> npt.NDArray[np.int32]:
    # fillPoly's coordinates name pixel centres; 4 fractional bits.
    return np.round(((points - offset) * scale - 0.5) * 16).astype(np.int32)
