"""Who is portrayed: a portrait's fixed attributes and their distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .drawing import Colour, mix

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
        skin = _jitter(rng, mix(_SKINS[low], _SKINS[min(low + 1, len(_SKINS) - 1)], tone - low), 5)
        hair = _jitter(rng, _HAIRS[_choice(rng, _for_tone(tone, _HAIR_ODDS, range(3, 9)))], 8)
        iris = _jitter(rng, _EYES[_choice(rng, _for_tone(tone, _EYE_ODDS, range(3, 8)))], 8)
        natural = (skin[0] * 0.86, skin[1] * 0.50, skin[2] * 0.52)
        painted = ((196, 62, 78), (206, 92, 100), (176, 50, 70), (210, 96, 120))[int(rng.integers(4))]
        lips = _jitter(rng, mix(natural, painted, float(rng.uniform(0.25, 0.7))), 6)
        hue = float(rng.uniform(0, 180))
        wall = (
            _hsv(hue, rng.uniform(20, 110), rng.uniform(120, 235)),
            _hsv(hue + rng.uniform(-25, 25), rng.uniform(20, 120), rng.uniform(70, 220)),
            _hsv(hue + rng.uniform(-40, 40), rng.uniform(10, 80), rng.uniform(170, 250)),
        )
        style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
        long_hair = style in ("long", "long_fringe", "bob", "wavy", "curls", "tied", "scarf")
        beard_odds = (0.97, 0.03, 0, 0, 0) if long_hair else (0.52, 0.16, 0.08, 0.1, 0.14)
        brow = mix(hair, (40, 32, 30), 0.45) if sum(hair) < 480 else mix(hair, (90, 70, 56), 0.6)
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


def _choice(rng: np.random.Generator, odds: Sequence[float]) -> int:
    weights = np.asarray(odds, np.float64)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _for_tone(tone: float, odds: Sequence[float], fair: range) -> list[float]:
    # Fair hair and eyes are rarer with dark skin.
    factor = float(np.clip((7.0 - tone) / 4.0, 0.1, 1.0))
    return [chance * (factor if index in fair else 1.0) for index, chance in enumerate(odds)]


def _jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    r, g, b = (float(np.clip(value + rng.uniform(-amount, amount), 0, 255)) for value in colour)
    return r, g, b


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    pixel = np.array([[[hue % 180, saturation, value]]], np.uint8)
    r, g, b = (float(channel) for channel in cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0])
    return r, g, b
