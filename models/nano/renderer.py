"""Draws the small, smooth world that nano is trained on: varied portraits with a parametric, large mouth.

A portrait is painted once per identity on a canonical canvas (`_paint`); a frame copies it, draws the eyes and the
mouth of the motion row on top, and bends the canvas with a smooth displacement field (head pose and jaw).
Shading is made of wide gradients only, so that a strongly compressing autoencoder can store it.

All drawing coordinates are in units of 1/256 of the picture side, x to the right and y down.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rap_edge.runtime.errors import OutputError, RapEdgeError, SpecError

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Colour = tuple[float, float, float]

MOTION_COLUMNS = (
    "mouth_open",
    "mouth_wide",
    "mouth_round",
    "teeth",
    "tongue",
    "yaw",
    "pitch",
    "roll",
    "shift_x",
    "shift_y",
    "blink",
    "gaze_x",
    "gaze_y",
)
MOUTH_COLUMNS = 5
HAIR_STYLES = (
    "bald",
    "short",
    "side_part",
    "swept",
    "fringe",
    "long",
    "long_fringe",
    "bob",
    "wavy",
    "curls",
    "afro",
    "tied",
    "scarf",
    "beanie",
)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square")
COLLARS = ("crew", "vee", "shirt", "turtle")

_MARGIN = 16.0  # canonical canvas reaches this far beyond the picture on every side
_OVERSAMPLE = 1.5  # canonical pixels per output pixel
_CX = 128.0
_EYE_Y = 106.0
_MOUTH_Y = 177.0
_SKINS: tuple[Colour, ...] = (
    (250, 224, 206),
    (244, 208, 184),
    (236, 192, 162),
    (226, 178, 142),
    (212, 160, 120),
    (194, 140, 100),
    (172, 118, 82),
    (150, 98, 68),
    (124, 80, 58),
    (104, 68, 52),
)
_HAIRS: tuple[Colour, ...] = (
    (34, 28, 28),
    (52, 38, 32),
    (78, 52, 36),
    (108, 72, 44),
    (142, 98, 56),
    (186, 144, 86),
    (216, 182, 124),
    (150, 72, 38),
    (176, 96, 52),
    (168, 164, 162),
    (214, 210, 206),
    (96, 60, 110),
    (60, 84, 130),
    (190, 110, 130),
)
_HAIR_ODDS = (0.16, 0.14, 0.13, 0.12, 0.1, 0.08, 0.06, 0.06, 0.04, 0.04, 0.03, 0.015, 0.015, 0.01)
_EYES: tuple[Colour, ...] = (
    (72, 46, 30),
    (104, 68, 38),
    (136, 98, 52),
    (92, 118, 66),
    (74, 126, 104),
    (84, 130, 172),
    (110, 150, 186),
    (128, 140, 150),
)
_EYE_ODDS = (0.25, 0.2, 0.14, 0.1, 0.07, 0.11, 0.07, 0.06)


@dataclass(frozen=True)
class Identity:
    """Everything about a portrait that does not move. Colours are RGB in 0..255, lengths in 1/256 of the side.

    Attributes:
        skin, hair, iris, lips, brow_colour, clothes, glasses_colour: colours.
        background: the two colours of the background's gradient and the colour of its glow.
        background_angle: direction of the gradient, radians.
        glow: centre (x, y) of the glow.
        light: side the light comes from, -1 (left) to 1 (right).
        face_width: half the width of the face at the cheeks.
        jaw: 0 pointed to 1 square.
        chin: y of the chin.
        hair_style, beard, glasses, collar: one of `HAIR_STYLES`, `BEARDS`, `GLASSES`, `COLLARS`.
        hair_line: y of the hairline at the centre of the forehead.
        hair_volume: how far the hair stands off the head.
        hair_part: where the hair is parted, -1 to 1.
        eye_gap: distance of the eyes from the centre line.
        eye_width, eye_height: half width and half height of an open eye.
        eye_tilt: rise of the outer corner.
        brow_height, brow_width, brow_arch, brow_tilt: distance above the eye, thickness, curvature, inner drop.
        nose_width, nose_y: half width and y of the nose's tip.
        mouth_width: half width of the resting mouth.
        upper_lip, lower_lip: thickness of the lips.
        smile: rise of the corners of the mouth.
        blush: strength of the cheeks' colour, 0 to 1.
        earrings: whether earrings are worn.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    brow_colour: Colour
    clothes: Colour
    glasses_colour: Colour
    background: tuple[Colour, Colour, Colour]
    background_angle: float
    glow: tuple[float, float]
    light: float
    face_width: float
    jaw: float
    chin: float
    hair_style: str
    beard: str
    glasses: str
    collar: str
    hair_line: float
    hair_volume: float
    hair_part: float
    eye_gap: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_height: float
    brow_width: float
    brow_arch: float
    brow_tilt: float
    nose_width: float
    nose_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    smile: float
    blush: float
    earrings: bool

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Identity:
        """Draw a random identity; the same generator state gives the same identity."""
        tone = float(rng.uniform(0, len(_SKINS) - 1))
        low = int(tone)
        skin = _jitter(rng, _mix(_SKINS[low], _SKINS[min(low + 1, len(_SKINS) - 1)], tone - low), 5)
        hair = _jitter(rng, _HAIRS[_choice(rng, _for_tone(tone, _HAIR_ODDS, range(3, 9)))], 8)
        iris = _jitter(rng, _EYES[_choice(rng, _for_tone(tone, _EYE_ODDS, range(3, 8)))], 8)
        natural = (skin[0] * 0.86, skin[1] * 0.50, skin[2] * 0.52)
        painted = ((196, 62, 78), (206, 92, 100), (176, 50, 70), (210, 96, 120))[int(rng.integers(4))]
        lips = _jitter(rng, _mix(natural, painted, float(rng.uniform(0.25, 0.7))), 6)
        hue = float(rng.uniform(0, 180))
        wall = (
            _hsv(hue, rng.uniform(20, 110), rng.uniform(120, 235)),
            _hsv(hue + rng.uniform(-25, 25), rng.uniform(20, 120), rng.uniform(70, 220)),
            _hsv(hue + rng.uniform(-40, 40), rng.uniform(10, 80), rng.uniform(170, 250)),
        )
        style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
        long_hair = style in ("long", "long_fringe", "bob", "wavy", "curls", "tied", "scarf")
        beard_odds = (0.97, 0.03, 0, 0, 0) if long_hair else (0.52, 0.16, 0.08, 0.1, 0.14)
        brow = _mix(hair, (40, 32, 30), 0.45) if sum(hair) < 480 else _mix(hair, (90, 70, 56), 0.6)
        return cls(
            skin=skin,
            hair=hair,
            iris=iris,
            lips=lips,
            brow_colour=brow,
            clothes=_hsv(rng.uniform(0, 180), rng.uniform(10, 190), rng.uniform(40, 235)),
            glasses_colour=((36, 32, 34), (92, 56, 40), (60, 66, 92), (128, 96, 64))[int(rng.integers(4))],
            background=wall,
            background_angle=float(rng.uniform(0, 2 * np.pi)),
            glow=(float(rng.uniform(0, 256)), float(rng.uniform(0, 150))),
            light=float(rng.uniform(-1, 1)),
            face_width=float(rng.uniform(83, 93)),
            jaw=float(rng.uniform(0.05, 0.9)) if not long_hair else float(rng.uniform(0, 0.5)),
            chin=float(rng.uniform(231, 240)),
            hair_style=style,
            beard=BEARDS[_choice(rng, beard_odds)],
            glasses=GLASSES[_choice(rng, (0.76, 0.12, 0.12))],
            collar=COLLARS[int(rng.integers(len(COLLARS)))],
            hair_line=float(rng.uniform(42, 58)),
            hair_volume=float(rng.uniform(5, 15)),
            hair_part=float(rng.uniform(-1, 1)),
            eye_gap=float(rng.uniform(39, 44)),
            eye_width=float(rng.uniform(19, 23)),
            eye_height=float(rng.uniform(9.5, 13.0)),
            eye_tilt=float(rng.uniform(-1.5, 3)),
            brow_height=float(rng.uniform(20, 25)),
            brow_width=float(rng.uniform(3.4, 6.4)),
            brow_arch=float(rng.uniform(2, 6.5)),
            brow_tilt=float(rng.uniform(-3, 1.5)),
            nose_width=float(rng.uniform(13, 19)),
            nose_y=float(rng.uniform(143, 149)),
            mouth_width=float(rng.uniform(41.5, 46)),
            upper_lip=float(rng.uniform(8, 11.5)),
            lower_lip=float(rng.uniform(10, 14)),
            smile=float(rng.uniform(1.5, 5)),
            blush=float(rng.uniform(0.1, 1)),
            earrings=bool(rng.random() < (0.4 if long_hair else 0.08)),
        )


def neutral_motion(**values: float) -> Floats:
    """One motion row, float32 [13]: closed mouth, open eyes, head straight, but for the named columns.

    Raises:
        SpecError: a name is not in `MOTION_COLUMNS`.
    """
    row = np.zeros(len(MOTION_COLUMNS), np.float32)
    for name, value in values.items():
        if name not in MOTION_COLUMNS:
            raise SpecError(f"'{name}' is not a motion column; use one of {', '.join(MOTION_COLUMNS)}.")
        row[MOTION_COLUMNS.index(name)] = value
    return row


def render(identity: Identity, motion_row: npt.ArrayLike, size: int = 256) -> Bytes:
    """Draw one frame.

    Args:
        identity: who.
        motion_row: float [13], columns `MOTION_COLUMNS`.
        size: side of the picture in pixels, a positive multiple of 64.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        SpecError: the row has another length or is not finite, or the size is not a positive multiple of 64.
    """
    motion = _checked(motion_row)
    if size <= 0 or size % 64:
        raise SpecError(f"Size {size} cannot be drawn; use a positive multiple of 64.")
    canvas = _paint(identity, size).copy()
    scale = _OVERSAMPLE * size / 256
    _draw_eyes(canvas, identity, motion, scale)
    _draw_mouth(canvas, identity, motion, scale)
    grid = _grid(64)
    source = (grid - _displacement(grid, motion) + _MARGIN) * scale - 0.5
    maps = cv2.resize(source, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.remap(canvas, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def mouth_box(identity: Identity, motion_row: npt.ArrayLike, size: int = 256) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1), ends excluded, that contain both lips in `render`'s picture.

    Raises:
        SpecError: the row has another length or is not finite.
    """
    motion = _checked(motion_row)
    outline = _mouth_shape(identity, motion).outer
    points = outline.copy()
    for _ in range(3):
        points = outline + _displacement(points, motion)
    low = np.floor((points.min(0) - 1.5) * size / 256).astype(int)
    high = np.ceil((points.max(0) + 1.5) * size / 256).astype(int)
    x0, y0 = np.clip(low, 0, size)
    x1, y1 = np.clip(high, 0, size)
    return int(x0), int(y0), int(x1), int(y1)


def contact_sheet(columns: int, rows: int, seed: int, size: int = 256) -> Bytes:
    """Random identities in random poses, uint8 [rows * size, columns * size, 3]; every second one has an open mouth."""
    rng = np.random.default_rng(seed)
    tiles = []
    for index in range(columns * rows):
        identity = Identity.sample(rng)
        motion = neutral_motion()
        motion[5:10] = rng.uniform(-0.8, 0.8, 5)
        motion[11:] = rng.uniform(-0.7, 0.7, 2)
        if index % 2:
            motion[:5] = rng.uniform(0, 1, 5) * (1, 0.8, 0.8, 1, 1)
        motion[10] = float(rng.random() < 0.08)
        tiles.append(render(identity, motion, size))
    lines = [np.concatenate(tiles[row * columns : (row + 1) * columns], 1) for row in range(rows)]
    return np.concatenate(lines, 0)


@dataclass(frozen=True)
class _MouthShape:
    """Closed polygons [points, 2] of the mouth in canonical coordinates; upper and lower are the lips' inner edges."""

    outer: Floats
    upper_lip: Floats
    lower_lip: Floats
    inner: Floats
    upper: Floats
    lower: Floats


def _checked(motion_row: npt.ArrayLike) -> Floats:
    motion = np.asarray(motion_row, np.float32)
    if motion.shape != (len(MOTION_COLUMNS),) or not np.isfinite(motion).all():
        raise SpecError(f"A motion row needs {len(MOTION_COLUMNS)} finite numbers; got shape {motion.shape}.")
    return motion


def _choice(rng: np.random.Generator, odds: Sequence[float]) -> int:
    weights = np.asarray(odds, np.float64)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _for_tone(tone: float, odds: Sequence[float], fair: range) -> list[float]:
    # Fair hair and eyes are rarer with dark skin.
    factor = float(np.clip((7.0 - tone) / 4.0, 0.1, 1.0))
    return [chance * (factor if index in fair else 1.0) for index, chance in enumerate(odds)]


def _mix(first: Colour, second: Colour, amount: float) -> Colour:
    r, g, b = (a + (c - a) * amount for a, c in zip(first, second, strict=True))
    return r, g, b


def _scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255.0, value * factor) for value in colour)
    return r, g, b


def _jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    r, g, b = (float(np.clip(value + rng.uniform(-amount, amount), 0, 255)) for value in colour)
    return r, g, b


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    pixel = np.array([[[hue % 180, saturation, value]]], np.uint8)
    r, g, b = (float(channel) for channel in cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0])
    return r, g, b


def _smoothstep(value: Any, start: float, end: float) -> Any:
    t = np.clip((value - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@lru_cache(maxsize=8)
def _grid(side: int) -> Floats:
    centres = (np.arange(side, dtype=np.float32) + 0.5) * (256.0 / side)
    grid = np.stack(np.meshgrid(centres, centres), -1).astype(np.float32)
    grid.setflags(write=False)
    return grid


@lru_cache(maxsize=8)
def _grid_fields() -> Floats:
    fields = _fields(_grid(64))
    fields.setflags(write=False)
    return fields


def _fields(points: Floats) -> Floats:
    """Displacement [6, ..., 2] of every point per unit of yaw, pitch, roll, shift_x, shift_y and mouth_open."""
    x, y = points[..., 0], points[..., 1]
    radius = np.sqrt(((x - _CX) / 104) ** 2 + ((y - 118) / 128) ** 2)
    head = 0.3 + 0.7 * (1 - _smoothstep(radius, 0.9, 1.75))
    nose = np.exp(-(((x - _CX) / 20) ** 2) - ((y - 144) / 20) ** 2)
    depth = np.exp(-1.1 * radius**2) * 1.1 - 0.15 + 0.25 * nose
    jaw = _smoothstep(y, 186, 232) * np.exp(-(((x - _CX) / 72) ** 4)) * (1 - 0.8 * _smoothstep(y, 236, 285))
    zero = np.zeros_like(x)
    fields = (
        (8.5 * depth, zero),
        (zero, 6.5 * depth),
        (-0.06 * head * (y - 215), 0.06 * head * (x - _CX)),
        (5 * head, zero),
        (zero, 4 * head),
        (zero, 11 * jaw),
    )
    return np.stack([np.stack(field, -1) for field in fields]).astype(np.float32)


def _displacement(points: Floats, motion: Floats) -> Floats:
    fields = _grid_fields() if points is _grid(64) else _fields(points)
    amounts = np.concatenate((motion[5:10], motion[:1]))
    return np.asarray(np.tensordot(amounts, fields, 1), np.float32)


def _polygon(points: Floats, scale: float, offset: tuple[float, float]) -> npt.NDArray[np.int32]:
    # fillPoly's coordinates name pixel centres; 4 fractional bits.
    return np.round(((points - offset) * scale - 0.5) * 16).astype(np.int32)


def _fill(image: Bytes, points: Floats, colour: Colour | int, scale: float, offset: tuple[float, float]) -> None:
    value = colour if isinstance(colour, tuple) else (float(colour),)
    cv2.fillPoly(image, [_polygon(points, scale, offset)], value, cv2.LINE_AA, 4)


def _curve(points: Sequence[tuple[float, float]], closed: bool = True, steps: int = 10) -> Floats:
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


def _ellipse(x: float, y: float, rx: float, ry: float, points: int = 48) -> Floats:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack((x + rx * np.cos(angle), y + ry * np.sin(angle)), -1).astype(np.float32)


class _Canvas:
    """A float32 RGB picture of the canonical square with anti-aliased, optionally soft, filled shapes."""

    def __init__(self, size: int) -> None:
        self.scale = _OVERSAMPLE * size / 256
        self.side = round((256 + 2 * _MARGIN) * self.scale)
        self.pixels: Floats = np.zeros((self.side, self.side, 3), np.float32)
        axis = (np.arange(self.side // 4, dtype=np.float32) + 0.5) * 4 / self.scale - _MARGIN
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
        low = np.floor((shape.min(0) - reach + _MARGIN) * self.scale).astype(int).clip(0, self.side - 1)
        high = np.ceil((shape.max(0) + reach + _MARGIN) * self.scale).astype(int).clip(1, self.side)
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
        offset = (low[0] / self.scale - _MARGIN, low[1] / self.scale - _MARGIN)
        _fill(image, shape, 255, self.scale * 2, offset)
        coverage = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if soft > 0:
            coverage = cv2.GaussianBlur(coverage, (0, 0), soft * self.scale)
        return np.asarray(coverage, np.float32)

    def full_mask(self, shape: Floats, soft: float = 0.0) -> Floats:
        """Coverage in 0..1 of the whole canvas."""
        return self.mask(shape, soft, (0, 0), (self.side, self.side))

    def bump(self, x: float, y: float, rx: float, ry: float) -> Floats:
        """Quarter-size Gaussian with its centre at (x, y)."""
        return np.asarray(np.exp(-0.5 * (((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2)), np.float32)


def _face_outline(identity: Identity) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    centre = 116.0
    power = 0.98 - 0.42 * identity.jaw
    x_lower = np.sign(cosine) * np.abs(cosine) ** power
    # A smooth narrowing towards the chin keeps pointed jaws from looking like eggs.
    narrowing = 1 - (0.11 - 0.09 * identity.jaw) * np.sin(np.clip(sine, 0, 1) * np.pi) ** 2
    x = np.where(sine > 0, x_lower * narrowing, cosine)
    y = np.where(sine > 0, sine * (identity.chin - centre), sine * (centre - 14))
    return np.stack((_CX + identity.face_width * x, centre + y), -1).astype(np.float32)


def _shade(canvas: _Canvas, identity: Identity) -> Floats:
    """Multiplies the skin's colour: quarter-size light and shadow of a soft head."""
    u = (canvas.x - _CX) / identity.face_width
    v = (canvas.y - 122) / 112
    shade = 1.03 + 0.09 * identity.light * u - 0.05 * v - 0.17 * _smoothstep(np.sqrt(u * u + 0.85 * v * v), 0.55, 1.1)
    shade += 0.07 * canvas.bump(_CX + 18 * identity.light, 66, 40, 18)
    for side in (-1, 1):
        shade -= 0.15 * canvas.bump(_CX + side * (identity.eye_gap - 6), _EYE_Y - 6, 19, 11)
        shade -= 0.06 * canvas.bump(_CX + side * identity.eye_gap, _EYE_Y + 17, 18, 6)
        shade += 0.06 * canvas.bump(_CX + side * 50, 140, 17, 13)
        shade -= 0.10 * canvas.bump(_CX + side * (identity.nose_width + 3), identity.nose_y + 2, 5, 9)
        shade -= 0.07 * canvas.bump(_CX + side * 50, 168, 7, 16)
    shade -= (0.07 + 0.06 * abs(identity.light)) * canvas.bump(
        _CX - np.sign(identity.light) * 9, identity.nose_y - 22, 5.5, 22
    )
    shade += 0.10 * canvas.bump(_CX + 2 * identity.light, identity.nose_y - 26, 4.5, 24)
    shade += 0.10 * canvas.bump(_CX + 3 * identity.light, identity.nose_y - 2, 7, 5.5)
    shade -= 0.20 * canvas.bump(_CX, identity.nose_y + 12, identity.nose_width, 4)
    shade += 0.05 * canvas.bump(_CX, identity.chin - 16, 16, 8)
    return np.asarray(shade, np.float32)


def _paint_background(canvas: _Canvas, identity: Identity) -> None:
    first, second, glow = (np.asarray(colour, np.float32) for colour in identity.background)
    direction = np.cos(identity.background_angle), np.sin(identity.background_angle)
    along = _smoothstep((canvas.x - 128) * direction[0] + (canvas.y - 128) * direction[1], -170, 170)[..., None]
    spot = canvas.bump(identity.glow[0], identity.glow[1], 60, 60)[..., None] * 0.65
    wall = first + (second - first) * along
    canvas.pixels[:] = canvas.enlarge(wall + (glow - wall) * spot)


def _profile(points: Sequence[tuple[float, float]], wave: float = 0.0, waves: float = 0.0) -> Floats:
    """A symmetric outline from (y, half width) pairs, top to bottom, with an optional ripple."""
    line = _curve([(half, y) for y, half in points], closed=False, steps=12)
    if wave:
        phase = np.linspace(0, 2 * np.pi * waves, len(line))
        line[:, 0] += wave * np.sin(phase) * np.minimum(1, np.arange(len(line)) / 8)
    right = line + (_CX, 0)
    left = line[::-1] * (-1, 1) + (_CX, 0)
    return np.concatenate((right, left)).astype(np.float32)


def _bumpy(x: float, y: float, rx: float, ry: float, bumps: int, depth: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = 1 + depth * np.abs(np.sin(angle * bumps / 2)) - depth / 2
    return np.stack((x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)), -1).astype(np.float32)


def _back_hair(identity: Identity) -> Floats | None:
    """Outline of the hair behind the head."""
    w, volume = identity.face_width, identity.hair_volume
    top = 10 - volume
    side = w + volume
    match identity.hair_style:
        case "long" | "long_fringe":
            return _profile(
                [(top, 4), (top + 6, 40), (45, side - 4), (110, side + 6), (190, side + 9), (290, side + 2)]
            )
        case "bob":
            return _profile(
                [(top, 4), (top + 6, 40), (45, side), (110, side + 9), (185, side + 13), (214, side), (222, 40)]
            )
        case "wavy":
            points = [(top, 4), (top + 6, 42), (45, side), (110, side + 9), (190, side + 12), (290, side + 10)]
            return _profile(points, 5.0, 4.0)
        case "curls":
            return _bumpy(_CX, 118, side + 12, 128 + volume, 22, 0.07)
        case "afro":
            return _bumpy(_CX, 86, side + 22, 100 + volume, 26, 0.05)
        case "tied":
            return _profile([(top + 4, 4), (top + 9, 40), (45, w - 2), (100, w + 3), (140, w - 8), (160, 20)])
        case "scarf":
            return _profile([(4, 4), (9, 44), (50, w + 6), (120, w + 15), (190, w + 10), (240, w + 26), (290, w + 40)])
        case _:
            return None


def _hair_line(identity: Identity) -> list[tuple[float, float]]:
    """The front hair's lower edge from the left sideburn to the right one."""
    w, line, part = identity.face_width, identity.hair_line, identity.hair_part
    low, temple = 112.0, line + 22
    match identity.hair_style:
        case "side_part" | "swept":
            # The lock falls from the parting to the other side.
            side = 1.0 if part > 0 else -1.0
            drop = 12.0 if identity.hair_style == "side_part" else 24.0
            edge = [(-w, low), (-w * 0.9, 92), (-w * 0.76, temple + drop), (-w * 0.3, line + 0.55 * drop)]
            edge += [(w * 0.22, line - 4), (w * 0.42, line - 7), (w * 0.66, line + 6), (w * 0.9, 90), (w, low)]
            return edge if side > 0 else [(-x, y) for x, y in reversed(edge)]
        case "fringe" | "long_fringe":
            arc = _EYE_Y - identity.brow_height - 8
            edge = [(-w * 1.02, low + 14), (-w * 0.92, 98), (-w * 0.72, arc + 8), (-w * 0.4, arc - 1)]
            edge += [
                (0, arc - 3 + 2 * part),
                (w * 0.4, arc - 1),
                (w * 0.72, arc + 8),
                (w * 0.92, 98),
                (w * 1.02, low + 14),
            ]
            return edge
        case "long" | "bob" | "wavy" | "curls":
            # Curtains that open at the parting.
            middle = 0.35 * part * w
            edge = [(-w * 1.04, 176), (-w * 0.97, 130), (-w * 0.86, 92), (-w * 0.52, line + 12)]
            edge += [(middle, line - 9), (w * 0.52, line + 12), (w * 0.86, 92), (w * 0.97, 130), (w * 1.04, 176)]
            return edge
        case "afro":
            edge = [(-w * 1.0, low + 2), (-w * 0.9, 88), (-w * 0.7, line + 10), (-w * 0.3, line - 2), (0, line - 4)]
            return edge + [(-x, y) for x, y in reversed(edge[:-1])]
        case "tied":
            edge = [(-w * 0.98, low - 6), (-w * 0.88, 84), (-w * 0.66, line + 6), (-w * 0.3, line - 6), (0, line - 9)]
            return edge + [(-x, y) for x, y in reversed(edge[:-1])]
        case _:
            edge = [(-w, low), (-w * 0.93, 92), (-w * 0.8, temple + 3), (-w * 0.55, line + 5), (-w * 0.25, line + 2)]
            edge += [(0, line - 1)]
            return edge + [(-x, y + 3 * part) for x, y in reversed(edge[:-1])]


def _front_hair(identity: Identity) -> Floats | None:
    """Outline of the hair on the head."""
    w, volume = identity.face_width, identity.hair_volume
    if identity.hair_style in ("bald", "scarf"):
        return None
    if identity.hair_style == "beanie":
        top = [(-w - 5, 66), (-w * 0.98, 26), (-w * 0.6, -8), (0, -22), (w * 0.6, -8), (w * 0.98, 26), (w + 5, 66)]
        return _curve([(_CX + x, y) for x, y in [*top, (w * 0.5, 58), (0, 55), (-w * 0.5, 58)]])
    lower = [(_CX + x, y) for x, y in _hair_line(identity)]
    out = volume * (0.55 if identity.hair_style == "tied" else 1.0)
    crown = 10 - out
    upper = [
        (_CX + w + out * 0.7, 88),
        (_CX + (w + out) * 0.93, 48),
        (_CX + w * 0.62, crown + 11),
        (_CX + w * 0.2 * identity.hair_part, crown),
        (_CX - w * 0.62, crown + 11),
        (_CX - (w + out) * 0.93, 48),
        (_CX - w - out * 0.7, 88),
    ]
    return _curve([*lower, *upper])


def _paint_hair(canvas: _Canvas, shape: Floats, colour: Colour, identity: Identity) -> None:
    sheen = 0.86 + 0.5 * canvas.bump(_CX + 30 * identity.light, 26, 62, 13)
    sheen += 0.16 * canvas.bump(_CX + 80 * np.sign(identity.light), 110, 26, 60)
    sheen -= 0.16 * _smoothstep(canvas.y, 80, 230)
    paint = canvas.enlarge(sheen)[..., None] * np.asarray(colour, np.float32)
    canvas.blend(shape, np.clip(paint, 0, 255), soft=0.6)


def _paint_body(canvas: _Canvas, identity: Identity) -> None:
    neck_colour = _scaled(identity.skin, 0.80)
    neck = identity.face_width * 0.62
    shape = _profile([(180, neck - 2), (225, neck - 4), (246, neck), (290, neck + 34)])
    canvas.blend(shape, neck_colour, soft=0.8)
    canvas.blend(_ellipse(_CX, identity.chin - 4, neck + 6, 17), _scaled(identity.skin, 0.58), 6, 0.7)
    cloth = identity.clothes
    shoulders = [(-26, 236), (26, 229), (_CX - neck - 4, 229), (_CX - neck + 4, 246)]
    right = [(2 * _CX - x, y) for x, y in reversed(shoulders)]
    middle = {"crew": [(_CX, 266)], "vee": [(_CX, 290)], "shirt": [(_CX, 282)], "turtle": [(_CX, 250)]}[identity.collar]
    body = _curve([*shoulders, *middle, *right, (300, 300), (-44, 300)])
    gradient = canvas.enlarge(1.06 + 0.0016 * identity.light * (canvas.x - 128) - 0.16 * canvas.bump(_CX, 236, 74, 16))
    canvas.blend(body, np.clip(gradient[..., None] * np.asarray(cloth, np.float32), 0, 255), soft=0.6)
    if identity.collar == "turtle":
        roll = _curve(
            [(_CX - neck - 5, 232), (_CX, 249), (_CX + neck + 5, 232), (_CX + neck + 7, 262), (_CX - neck - 7, 262)]
        )
        canvas.blend(roll, _scaled(cloth, 0.86), 1.5)
    if identity.collar == "shirt":
        for side in (-1, 1):
            wing = [(side * (neck + 1), 230), (side * (neck + 14), 244), (side * 30, 274), (side * 12, 266)]
            canvas.blend(
                np.asarray([(_CX + x, y) for x, y in wing], np.float32), _mix(cloth, (255, 255, 255), 0.3), 0.8
            )


def _paint_ears(canvas: _Canvas, identity: Identity) -> None:
    for side in (-1, 1):
        x = _CX + side * (identity.face_width + 3)
        ear = _curve(
            [(x - side * 8, 96), (x + side * 6, 98), (x + side * 9, 112), (x + side * 5, 132), (x - side * 6, 140)]
        )
        canvas.blend(ear, _scaled(identity.skin, 0.88 + 0.05 * side * identity.light), 0.6)
        canvas.blend(_ellipse(x + side * 1.5, 116, 3.5, 11), _scaled(identity.skin, 0.68), 2.2, 0.8)
        if identity.earrings:
            canvas.blend(_ellipse(x + side * 1, 144, 4.2, 4.2), (236, 206, 128), 0.7)


def _paint_beard(canvas: _Canvas, identity: Identity, face: Floats) -> None:
    if identity.beard == "none":
        return
    colour = _mix(_scaled(identity.hair, 1.0), identity.skin, 0.12)
    w, chin, y = identity.face_width, identity.chin, _MOUTH_Y
    inside = canvas.full_mask(face, 0.5)
    moustache = _curve(
        [(_CX - 44, y + 3), (_CX - 26, y - 17), (_CX, y - 21), (_CX + 26, y - 17), (_CX + 44, y + 3), (_CX, y - 6)]
    )
    jaw_line = [(-w - 4, 122), (-w * 0.8, 136), (-w * 0.62, 165), (-w * 0.58, y + 8), (-w * 0.4, y + 22), (0, y + 21)]
    jaw = _curve(
        [
            *[(_CX + x, h) for x, h in jaw_line],
            *[(_CX - x, h) for x, h in reversed(jaw_line[:-1])],
            (_CX + w, 200),
            (_CX + w * 0.5, chin + 12),
            (_CX - w * 0.5, chin + 12),
            (_CX - w, 200),
        ]
    )
    goatee = _curve([(_CX - 24, y + 22), (_CX, y + 19), (_CX + 24, y + 22), (_CX + 26, chin + 4), (_CX - 26, chin + 4)])
    match identity.beard:
        case "stubble":
            canvas.blend(jaw, colour, 7, 0.30, inside)
            canvas.blend(moustache, colour, 4, 0.26, inside)
        case "moustache":
            canvas.blend(moustache, colour, 2.0, 0.92, inside)
        case "goatee":
            canvas.blend(moustache, colour, 2.2, 0.85, inside)
            canvas.blend(goatee, colour, 2.6, 0.9, inside)
        case _:
            canvas.blend(jaw, colour, 3.5, 0.93, inside)
            canvas.blend(moustache, colour, 2.4, 0.9, inside)


def _paint_features(canvas: _Canvas, identity: Identity) -> None:
    for side in (-1, 1):
        nostril = _ellipse(_CX + side * identity.nose_width * 0.52, identity.nose_y + 8, 4.6, 2.5)
        canvas.blend(nostril, _scaled(identity.skin, 0.34), 1.0, 0.85)
        wing_x = _CX + side * (identity.nose_width - 1)
        wing = _curve(
            [
                (wing_x, identity.nose_y - 6),
                (wing_x + side * 3, identity.nose_y + 2),
                (wing_x - side, identity.nose_y + 8),
            ]
        )
        canvas.blend(wing, _scaled(identity.skin, 0.7), 1.6, 0.8)
        x = _CX + side * identity.eye_gap
        y = _EYE_Y - identity.brow_height
        half, arch, thick = 23.0, identity.brow_arch, identity.brow_width
        inner = (x - side * half, y + 1 + identity.brow_tilt)
        peak = (x + side * 7, y - arch)
        tail = (x + side * (half + 3), y + 4)
        brow = _curve(
            [
                (inner[0], inner[1] - thick * 0.45),
                (peak[0], peak[1] - thick * 0.5),
                tail,
                (peak[0], peak[1] + thick * 0.5),
                (inner[0], inner[1] + thick * 0.5),
            ]
        )
        canvas.blend(brow, identity.brow_colour, 0.9, 0.92)
        crease = _eye_lids(identity, side, 0.0)[0] + (0, -5.0)
        band = np.concatenate((crease, crease[::-1] + (0, 1.8)))
        canvas.blend(band.astype(np.float32), _scaled(identity.skin, 0.55), 0.8, 0.6)


def _paint_glasses(canvas: _Canvas, identity: Identity) -> None:
    if identity.glasses == "none":
        return
    y = _EYE_Y + 3
    for side in (-1, 1):
        x = _CX + side * (identity.eye_gap + 0.5)
        if identity.glasses == "round":
            outer, inner = _ellipse(x, y, 32, 28), _ellipse(x, y, 28.4, 24.4)
        else:
            outer, inner = (_rounded(x, y, 33 - d, 24 - d) for d in (0.0, 3.6))
        ring = np.concatenate((outer, outer[:1], inner[:1], inner[::-1]))
        canvas.blend(ring, identity.glasses_colour, 0.5, 0.95)
        temple = [(x + side * 31, y - 7), (_CX + side * (identity.face_width + 4), y - 9)]
        bar = np.asarray([*temple, (temple[1][0], temple[1][1] + 4), (temple[0][0], temple[0][1] + 4)], np.float32)
        canvas.blend(bar, identity.glasses_colour, 0.5, 0.95)
    bridge = _curve([(_CX - 12, y - 4), (_CX, y - 8), (_CX + 12, y - 4), (_CX, y - 4)])
    canvas.blend(bridge, identity.glasses_colour, 0.5, 0.95)


def _rounded(x: float, y: float, rx: float, ry: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack(
        (x + rx * np.sign(cosine) * np.abs(cosine) ** 0.5, y + ry * np.sign(sine) * np.abs(sine) ** 0.5), -1
    ).astype(np.float32)


@lru_cache(maxsize=4)
def _paint(identity: Identity, size: int) -> Bytes:
    """The portrait without eyes and mouth on the canonical canvas, uint8 [side, side, 3]."""
    canvas = _Canvas(size)
    _paint_background(canvas, identity)
    face = _face_outline(identity)
    shade = canvas.enlarge(_shade(canvas, identity))[..., None]
    scarf = identity.hair_style == "scarf"
    hair = identity.clothes if scarf else identity.hair
    back, front = _back_hair(identity), _front_hair(identity)
    if back is not None:
        _paint_hair(canvas, back, _scaled(hair, 0.78), identity)
    _paint_body(canvas, identity)
    if not scarf and identity.hair_style not in ("long", "long_fringe", "bob", "wavy", "curls"):
        _paint_ears(canvas, identity)
    skin = shade * np.asarray(identity.skin, np.float32)
    rosy = canvas.bump(_CX - 52, 148, 19, 15) + canvas.bump(_CX + 52, 148, 19, 15) + 0.4 * canvas.bump(_CX, 146, 12, 8)
    skin *= 1 - canvas.enlarge(rosy * 0.15 * identity.blush)[..., None] * np.asarray((0.1, 1.0, 0.9), np.float32)
    canvas.blend(face, np.clip(skin, 0, 255), 0.6)
    _paint_beard(canvas, identity, face)
    _paint_features(canvas, identity)
    if scarf and back is not None:
        opening = ((face - (_CX, 122)) * (0.95, 0.86) + (_CX, 128)).astype(np.float32)
        canvas.blend(
            back, _scaled(hair, 0.9), 0.6, inside=canvas.full_mask(back) * (1 - canvas.full_mask(opening, 0.6))
        )
        canvas.blend(_ellipse(_CX, identity.chin + 26, 70, 12), _scaled(hair, 0.66), 7, 0.7)
    if front is not None:
        canvas.blend(front + (0, 4), _scaled(identity.skin, 0.5), 5, 0.35, canvas.full_mask(face))
        colour = identity.clothes if identity.hair_style == "beanie" else hair
        _paint_hair(canvas, front.astype(np.float32), colour, identity)
        if identity.hair_style == "beanie":
            w = identity.face_width
            edge = [
                (-w - 7, 70),
                (-w * 0.5, 50),
                (0, 46),
                (w * 0.5, 50),
                (w + 7, 70),
                (w + 6, 88),
                (w * 0.5, 72),
                (0, 68),
            ]
            fold = _curve([(_CX + x, y - 6) for x, y in [*edge, (-w * 0.5, 72), (-w - 6, 88)]])
            canvas.blend(fold, _mix(colour, (255, 255, 255), 0.16), 1.2)
    _paint_glasses(canvas, identity)
    painted = np.clip(canvas.pixels + 0.5, 0, 255).astype(np.uint8)
    painted.setflags(write=False)
    return painted


def _eye_lids(identity: Identity, side: int, blink: float) -> tuple[Floats, Floats]:
    """Upper and lower lid, float32 [17, 2] each, from the inner to the outer corner."""
    t = np.linspace(-1, 1, 17, dtype=np.float32)
    x = _CX + side * (identity.eye_gap + t * identity.eye_width)
    corner = _EYE_Y + 2 - identity.eye_tilt * t
    bow = (1 - np.abs(t) ** 2.2) * (1 - 0.12 * t)
    lower = corner + 0.62 * identity.eye_height * bow
    upper = corner - 1.08 * identity.eye_height * bow
    upper = upper + (lower - 0.6 - upper) * blink
    return np.stack((x, upper), -1).astype(np.float32), np.stack((x, lower), -1).astype(np.float32)


def _draw_eyes(canvas: Bytes, identity: Identity, motion: Floats, scale: float) -> None:
    blink = float(np.clip(motion[10], 0, 1))
    for side in (-1, 1):
        upper, lower = _eye_lids(identity, side, blink)
        x, y = _CX + side * identity.eye_gap, _EYE_Y + 1
        reach = (identity.eye_width + 7, identity.eye_height + 8)
        low = np.floor((np.asarray((x - reach[0], y - reach[1])) + _MARGIN) * scale).astype(int)
        extent = np.ceil(np.asarray(reach) * 2 * scale).astype(int)
        window = canvas[low[1] : low[1] + extent[1], low[0] : low[0] + extent[0]]
        offset = (low[0] / scale - _MARGIN, low[1] / scale - _MARGIN)
        height, width = window.shape[:2]
        fine = 2 * scale
        white = 232 if sum(identity.skin) > 420 else 222
        image = np.empty((height * 2, width * 2, 3), np.uint8)
        image[:] = (white, white - 4, white - 6)
        iris_x = x + float(motion[11]) * 6.0
        iris_y = _EYE_Y + 0.2 - 0.1 * identity.eye_height + float(motion[12]) * 3.0
        radius = identity.eye_height * 0.92
        _fill(image, _ellipse(iris_x, iris_y, radius, radius, 28), _scaled(identity.iris, 0.6), fine, offset)
        _fill(image, _ellipse(iris_x, iris_y + 0.6, radius * 0.84, radius * 0.84, 28), identity.iris, fine, offset)
        _fill(image, _ellipse(iris_x, iris_y, radius * 0.46, radius * 0.46, 20), (18, 14, 14), fine, offset)
        glint = _ellipse(iris_x + 3.2 * np.sign(identity.light), iris_y - 3.4, 2.3, 2.3, 16)
        _fill(image, glint, (250, 250, 250), fine, offset)
        # The lid's shadow on the ball, then the lash line that tapers to both corners.
        bow = (1 - np.linspace(-1, 1, 17) ** 2)[:, None]
        shadow = np.concatenate((upper - (0, 2), (upper + bow * (0, 3.2))[::-1])).astype(np.float32)
        veil = image.copy()
        _fill(veil, shadow, (120, 100, 96), fine, offset)
        image = cv2.addWeighted(image, 0.6, veil, 0.4, 0)
        mask = np.zeros((height * 2, width * 2), np.uint8)
        _fill(mask, np.concatenate((upper, lower[::-1])), 255, fine, offset)
        lash = np.concatenate((upper + (0, 0.9), (upper - (0, 0.6) - bow * (0, 2.0))[::-1])).astype(np.float32)
        _fill(image, lash, (38, 26, 24), fine, offset)
        _fill(mask, lash, 255, fine, offset)
        colour = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        coverage = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
        base = window.astype(np.float32)
        window[:] = np.clip(base + (colour - base) * coverage + 0.5, 0, 255)


def _mouth_shape(identity: Identity, motion: Floats) -> _MouthShape:
    opened, wide, rounded = (float(np.clip(value, 0, 1)) for value in motion[:3])
    half = identity.mouth_width * (1 + 0.13 * wide - 0.30 * rounded * (1 - 0.3 * wide)) - 3.0 * opened
    t = np.linspace(-1, 1, 33, dtype=np.float32)
    x = _CX + half * t
    lift = (identity.smile + 2.5 * wide) * (1 - rounded)
    seam = _MOUTH_Y + 1.5 - lift * (np.abs(t) ** 2 - 0.2)
    gap = 42.0 * opened
    # A round mouth opens like a circle, a wide one like a lens.
    power = 0.5 + 0.38 * (1 - rounded) * (1 - 0.62 * opened)
    bow = np.maximum(1 - t**2, 0) ** power
    upper = seam - 0.24 * gap * bow
    lower = seam + 0.76 * gap * bow
    pout = 1 + 0.22 * rounded - 0.12 * opened - 0.10 * wide
    taper = np.maximum(1 - np.abs(t) ** 2.4, 0) ** 0.8
    cupid = 1 - 0.20 * np.exp(-((t / 0.13) ** 2)) + 0.10 * np.exp(-(((np.abs(t) - 0.27) / 0.16) ** 2))
    top = upper - (identity.upper_lip * pout * taper * cupid + 0.8)
    bottom = lower + identity.lower_lip * pout * np.maximum(1 - np.abs(t) ** 2.2, 0) ** 0.75 + 0.8

    def ring(first: Floats, second: Floats) -> Floats:
        points = np.concatenate((np.stack((x, first), -1), np.stack((x, second), -1)[::-1]))
        return np.asarray(points, np.float32)

    return _MouthShape(
        outer=ring(top, bottom),
        upper_lip=ring(top, upper),
        lower_lip=ring(lower, bottom),
        inner=ring(upper - 0.5, lower + 0.5),
        upper=np.stack((x, upper), -1).astype(np.float32),
        lower=np.stack((x, lower), -1).astype(np.float32),
    )


def _draw_mouth(canvas: Bytes, identity: Identity, motion: Floats, scale: float) -> None:
    shape = _mouth_shape(identity, motion)
    low = np.floor((shape.outer.min(0) - (9, 6) + _MARGIN) * scale).astype(int)
    high = np.ceil((shape.outer.max(0) + (9, 16) + _MARGIN) * scale).astype(int)
    window = canvas[low[1] : high[1], low[0] : high[0]]
    offset = (low[0] / scale - _MARGIN, low[1] / scale - _MARGIN)
    height, width = window.shape[:2]
    fine = 2 * scale
    image = np.empty((height * 2, width * 2, 3), np.uint8)
    image[:] = np.asarray(_scaled(identity.lips, 0.88), np.uint8)
    _fill(image, shape.lower_lip, identity.lips, fine, offset)
    bottom = float(shape.outer[:, 1].max())
    middle = float(shape.lower[16, 1])
    shine_y = middle + 0.45 * (bottom - middle)
    half = float(shape.outer[:, 0].max()) - _CX
    for grow, amount in ((1.0, 0.07), (0.72, 0.09), (0.45, 0.11)):
        shine = _ellipse(_CX + 4 * identity.light, shine_y, half * 0.5 * grow, 0.34 * (bottom - middle) * grow, 24)
        _fill(image, shine, _mix(identity.lips, (255, 240, 236), amount * 2.2), fine, offset)
    _fill(image, shape.inner, (66, 12, 20), fine, offset)
    _draw_inner_mouth(image, shape, motion, fine, offset)
    mask = np.zeros((height * 2, width * 2), np.uint8)
    _fill(mask, shape.outer, 255, fine, offset)
    colour = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    coverage = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    edge = cv2.GaussianBlur(coverage, (0, 0), 0.55 * scale).astype(np.float32)[..., None] / 255
    # Light from above: the lower lip throws a soft shadow on the chin.
    quarter = cv2.resize(coverage, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, 0], [0, 1, 5.0 * scale / 4]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(quarter, move, quarter.shape[::-1]), (0, 0), 3.2 * scale / 4)
    falloff = cv2.resize(shadow, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)[..., None]
    fade = np.minimum(1.0, np.minimum(np.arange(height)[::-1], np.arange(height)) / (4 * scale)).astype(np.float32)
    base = window.astype(np.float32) * (1 - falloff * (fade[:, None, None] * (0.22 / 255)))
    window[:] = np.clip(base + (colour - base) * edge + 0.5, 0, 255)


def _draw_inner_mouth(
    image: Bytes, shape: _MouthShape, motion: Floats, fine: float, offset: tuple[float, float]
) -> None:
    """Tongue and teeth, both bounded by the lips' inner edges."""
    teeth, tongue = (float(np.clip(value, 0, 1)) for value in motion[3:5])
    t = np.linspace(-1, 1, 33, dtype=np.float32)
    upper, lower = shape.upper, shape.lower
    gap = lower[:, 1] - upper[:, 1]

    def strip(edge: Floats, height: Floats, colour: Colour) -> None:
        # fillPoly draws the outline of empty parts too, so they must be left out.
        there = np.flatnonzero(np.abs(height) > 0.4)
        if len(there) < 3:
            return
        other = edge + np.stack((np.zeros_like(height), height), -1)
        _fill(image, np.concatenate((edge[there], other[there][::-1])).astype(np.float32), colour, fine, offset)

    # A dark rim under the tongue and none of it in a small opening: the gap stays visible between the lips.
    floor = lower - np.stack((np.zeros_like(gap), 0.08 * gap), -1)
    rise = np.minimum((5 + 14 * tongue) * np.maximum(1 - (t / 0.78) ** 2, 0) ** 0.6, np.maximum(0.5 * gap - 6, 0))
    strip(floor, -rise, (164, 58, 68))
    strip(floor, -np.maximum(rise - 3.0, 0) * np.maximum(1 - (t / 0.5) ** 2, 0), (184, 76, 84))
    arch = np.maximum(1 - (t / 0.9) ** 2, 0) ** 0.4
    strip(upper, np.minimum((2.5 + 8 * teeth) * arch, 0.4 * gap) * min(1.0, 4 * teeth), (240, 234, 222))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a contact sheet of random portraits: `python -m rap_edge.models.nano.renderer sheet.png`."""
    parser = argparse.ArgumentParser(description="Write a contact sheet of random portraits as PNG.")
    parser.add_argument("out", type=Path, help="path of the PNG")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256, help="side of one portrait in pixels, a multiple of 64")
    options = parser.parse_args(arguments)
    try:
        sheet = contact_sheet(options.columns, options.rows, options.seed, options.size)
        if options.out.suffix != ".png" or not cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise OutputError(f"Cannot write '{options.out}'; name a .png file in a folder that exists.")
    except RapEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
