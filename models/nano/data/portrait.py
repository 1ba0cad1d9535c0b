"""Paints the part of a portrait that does not move, once per identity, on the canonical canvas.

Shading is made of wide gradients only, so that a strongly compressing autoencoder can store it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .drawing import (
    MARGIN,
    Bytes,
    Canvas,
    Colour,
    Floats,
    curve,
    ellipse,
    mix,
    rounded_box,
    scaled,
    shifted,
    smoothstep,
)
from .identity import Identity

CX = 128.0  # the centre line
EYE_Y = 106.0
MOUTH_Y = 177.0
_BELOW, _FAR = 290.0, 480.0  # what is drawn down to the first goes on to the second, below a wide canvas


@lru_cache(maxsize=4)
def paint(identity: Identity, size: int, margin: float = MARGIN) -> Bytes:
    """The portrait without eyes and mouth on the canonical canvas, uint8 [side, side, 3]."""
    canvas = Canvas(size, margin)
    _paint_background(canvas, identity)
    face = _face_outline(identity)
    shade = canvas.enlarge(_shade(canvas, identity))[..., None]
    scarf = identity.hair_style == "scarf"
    hair = identity.clothes if scarf else identity.hair
    back, front = _back_hair(identity), _front_hair(identity)
    if back is not None:
        _paint_hair(canvas, back, scaled(hair, 0.78), identity)
    _paint_body(canvas, identity)
    if not scarf and identity.hair_style not in ("long", "long_fringe", "bob", "wavy", "curls"):
        _paint_ears(canvas, identity)
    skin = shade * np.asarray(identity.skin, np.float32)
    rosy = canvas.bump(CX - 52, 148, 19, 15) + canvas.bump(CX + 52, 148, 19, 15) + 0.4 * canvas.bump(CX, 146, 12, 8)
    skin *= 1 - canvas.enlarge(rosy * 0.15 * identity.blush)[..., None] * np.asarray((0.1, 1.0, 0.9), np.float32)
    canvas.blend(face, np.clip(skin, 0, 255), 0.6)
    _paint_beard(canvas, identity, face)
    _paint_features(canvas, identity)
    if scarf and back is not None:
        opening = shifted(shifted(face, -CX, -122) * (0.95, 0.86), CX, 128)
        canvas.blend(back, scaled(hair, 0.9), 0.6, inside=canvas.full_mask(back) * (1 - canvas.full_mask(opening, 0.6)))
        canvas.blend(ellipse(CX, identity.chin + 26, 70, 12), scaled(hair, 0.66), 7, 0.7)
    if front is not None:
        canvas.blend(shifted(front, 0, 4), scaled(identity.skin, 0.5), 5, 0.35, canvas.full_mask(face))
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
            fold = curve([(CX + x, y - 6) for x, y in [*edge, (-w * 0.5, 72), (-w - 6, 88)]])
            canvas.blend(fold, mix(colour, (255, 255, 255), 0.16), 1.2)
    _paint_glasses(canvas, identity)
    painted: Bytes = np.asarray(np.clip(canvas.pixels + 0.5, 0, 255), np.uint8)
    painted.setflags(write=False)
    return painted


def eye_lids(identity: Identity, side: int, blink: float) -> tuple[Floats, Floats]:
    """Upper and lower lid, float32 [17, 2] each, from the inner to the outer corner."""
    t = np.linspace(-1, 1, 17, dtype=np.float32)
    x = CX + side * (identity.eye_gap + t * identity.eye_width)
    corner = EYE_Y + 2 - identity.eye_tilt * t
    bow = (1 - np.abs(t) ** 2.2) * (1 - 0.12 * t)
    lower = corner + 0.62 * identity.eye_height * bow
    upper = corner - 1.08 * identity.eye_height * bow
    upper = upper + (lower - 0.6 - upper) * blink
    return np.stack((x, upper), -1).astype(np.float32), np.stack((x, lower), -1).astype(np.float32)


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
    return np.stack((CX + identity.face_width * x, centre + y), -1).astype(np.float32)


def _shade(canvas: Canvas, identity: Identity) -> Floats:
    """Multiplies the skin's colour: quarter-size light and shadow of a soft head."""
    u = (canvas.x - CX) / identity.face_width
    v = (canvas.y - 122) / 112
    shade = 1.03 + 0.09 * identity.light * u - 0.05 * v - 0.17 * smoothstep(np.sqrt(u * u + 0.85 * v * v), 0.55, 1.1)
    shade += 0.07 * canvas.bump(CX + 18 * identity.light, 66, 40, 18)
    for side in (-1, 1):
        shade -= 0.15 * canvas.bump(CX + side * (identity.eye_gap - 6), EYE_Y - 6, 19, 11)
        shade -= 0.06 * canvas.bump(CX + side * identity.eye_gap, EYE_Y + 17, 18, 6)
        shade += 0.06 * canvas.bump(CX + side * 50, 140, 17, 13)
        shade -= 0.10 * canvas.bump(CX + side * (identity.nose_width + 3), identity.nose_y + 2, 5, 9)
        shade -= 0.07 * canvas.bump(CX + side * 50, 168, 7, 16)
    shade -= (0.07 + 0.06 * abs(identity.light)) * canvas.bump(
        CX - np.sign(identity.light) * 9, identity.nose_y - 22, 5.5, 22
    )
    shade += 0.10 * canvas.bump(CX + 2 * identity.light, identity.nose_y - 26, 4.5, 24)
    shade += 0.10 * canvas.bump(CX + 3 * identity.light, identity.nose_y - 2, 7, 5.5)
    shade -= 0.20 * canvas.bump(CX, identity.nose_y + 12, identity.nose_width, 4)
    shade += 0.05 * canvas.bump(CX, identity.chin - 16, 16, 8)
    return np.asarray(shade, np.float32)


def _paint_background(canvas: Canvas, identity: Identity) -> None:
    first, second, glow = (np.asarray(colour, np.float32) for colour in identity.background)
    direction = np.cos(identity.background_angle), np.sin(identity.background_angle)
    along = smoothstep((canvas.x - 128) * direction[0] + (canvas.y - 128) * direction[1], -170, 170)[..., None]
    spot = canvas.bump(identity.glow[0], identity.glow[1], 60, 60)[..., None] * 0.65
    wall = first + (second - first) * along
    canvas.pixels[:] = canvas.enlarge(wall + (glow - wall) * spot)


def _profile(points: Sequence[tuple[float, float]], wave: float = 0.0, waves: float = 0.0) -> Floats:
    """A symmetric outline from (y, half width) pairs, top to bottom, with an optional ripple."""
    line = curve([(half, y) for y, half in points], closed=False, steps=12)
    if wave:
        phase = np.linspace(0, 2 * np.pi * waves, len(line))
        line[:, 0] += wave * np.sin(phase) * np.minimum(1, np.arange(len(line)) / 8)
    if line[-1, 1] >= _BELOW:
        line = np.concatenate((line, line[-1:] * (1, 0) + (0, _FAR)))
    right = shifted(line, CX, 0)
    left = shifted(line[::-1] * (-1, 1), CX, 0)
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
            return _bumpy(CX, 118, side + 12, 128 + volume, 22, 0.07)
        case "afro":
            return _bumpy(CX, 86, side + 22, 100 + volume, 26, 0.05)
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
            arc = EYE_Y - identity.brow_height - 8
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
        return curve([(CX + x, y) for x, y in [*top, (w * 0.5, 58), (0, 55), (-w * 0.5, 58)]])
    lower = [(CX + x, y) for x, y in _hair_line(identity)]
    out = volume * (0.55 if identity.hair_style == "tied" else 1.0)
    crown = 10 - out
    upper = [
        (CX + w + out * 0.7, 88),
        (CX + (w + out) * 0.93, 48),
        (CX + w * 0.62, crown + 11),
        (CX + w * 0.2 * identity.hair_part, crown),
        (CX - w * 0.62, crown + 11),
        (CX - (w + out) * 0.93, 48),
        (CX - w - out * 0.7, 88),
    ]
    return curve([*lower, *upper])


def _paint_hair(canvas: Canvas, shape: Floats, colour: Colour, identity: Identity) -> None:
    sheen = 0.86 + 0.5 * canvas.bump(CX + 30 * identity.light, 26, 62, 13)
    sheen += 0.16 * canvas.bump(CX + 80 * np.sign(identity.light), 110, 26, 60)
    sheen -= 0.16 * smoothstep(canvas.y, 80, 230)
    paint = canvas.enlarge(sheen)[..., None] * np.asarray(colour, np.float32)
    canvas.blend(shape, np.clip(paint, 0, 255), soft=0.6)


def _paint_body(canvas: Canvas, identity: Identity) -> None:
    neck_colour = scaled(identity.skin, 0.80)
    neck = identity.face_width * 0.62
    shape = _profile([(180, neck - 2), (225, neck - 4), (246, neck), (290, neck + 34)])
    canvas.blend(shape, neck_colour, soft=0.8)
    canvas.blend(ellipse(CX, identity.chin - 4, neck + 6, 17), scaled(identity.skin, 0.58), 6, 0.7)
    cloth = identity.clothes
    shoulders = [(-26, 236), (26, 229), (CX - neck - 4, 229), (CX - neck + 4, 246)]
    right = [(2 * CX - x, y) for x, y in reversed(shoulders)]
    middle = {
        "crew": [(CX, 266)],
        "vee": [(CX, 290)],
        "shirt": [(CX, 282)],
        "turtle": [(CX, 250)],
    }[identity.collar]
    body = curve([*shoulders, *middle, *right, (300, 300), (-44, 300)])
    gradient = canvas.enlarge(1.06 + 0.0016 * identity.light * (canvas.x - 128) - 0.16 * canvas.bump(CX, 236, 74, 16))
    cloth_paint = np.clip(gradient[..., None] * np.asarray(cloth, np.float32), 0, 255)
    if canvas.margin > MARGIN:
        trunk = [(-46, 284), (302, 284), (330, 330), (338, _FAR), (-82, _FAR), (-74, 330)]
        canvas.blend(np.asarray(trunk, np.float32), cloth_paint, soft=0.6)
    canvas.blend(body, cloth_paint, soft=0.6)
    if identity.collar == "turtle":
        roll = curve(
            [
                (CX - neck - 5, 232),
                (CX, 249),
                (CX + neck + 5, 232),
                (CX + neck + 7, 262),
                (CX - neck - 7, 262),
            ]
        )
        canvas.blend(roll, scaled(cloth, 0.86), 1.5)
    if identity.collar == "shirt":
        for side in (-1, 1):
            wing = [(side * (neck + 1), 230), (side * (neck + 14), 244), (side * 30, 274), (side * 12, 266)]
            canvas.blend(np.asarray([(CX + x, y) for x, y in wing], np.float32), mix(cloth, (255, 255, 255), 0.3), 0.8)


def _paint_ears(canvas: Canvas, identity: Identity) -> None:
    for side in (-1, 1):
        x = CX + side * (identity.face_width + 3)
        ear = curve(
            [(x - side * 8, 96), (x + side * 6, 98), (x + side * 9, 112), (x + side * 5, 132), (x - side * 6, 140)]
        )
        canvas.blend(ear, scaled(identity.skin, 0.88 + 0.05 * side * identity.light), 0.6)
        canvas.blend(ellipse(x + side * 1.5, 116, 3.5, 11), scaled(identity.skin, 0.68), 2.2, 0.8)
        if identity.earrings:
            canvas.blend(ellipse(x + side * 1, 144, 4.2, 4.2), (236, 206, 128), 0.7)


def _paint_beard(canvas: Canvas, identity: Identity, face: Floats) -> None:
    if identity.beard == "none":
        return
    colour = mix(scaled(identity.hair, 1.0), identity.skin, 0.12)
    w, chin, y = identity.face_width, identity.chin, MOUTH_Y
    inside = canvas.full_mask(face, 0.5)
    moustache = curve(
        [
            (CX - 44, y + 3),
            (CX - 26, y - 17),
            (CX, y - 21),
            (CX + 26, y - 17),
            (CX + 44, y + 3),
            (CX, y - 6),
        ]
    )
    jaw_line = [(-w - 4, 122), (-w * 0.8, 136), (-w * 0.62, 165), (-w * 0.58, y + 8), (-w * 0.4, y + 22), (0, y + 21)]
    jaw = curve(
        [
            *[(CX + x, h) for x, h in jaw_line],
            *[(CX - x, h) for x, h in reversed(jaw_line[:-1])],
            (CX + w, 200),
            (CX + w * 0.5, chin + 12),
            (CX - w * 0.5, chin + 12),
            (CX - w, 200),
        ]
    )
    goatee = curve(
        [
            (CX - 24, y + 22),
            (CX, y + 19),
            (CX + 24, y + 22),
            (CX + 26, chin + 4),
            (CX - 26, chin + 4),
        ]
    )
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


def _paint_features(canvas: Canvas, identity: Identity) -> None:
    for side in (-1, 1):
        nostril = ellipse(CX + side * identity.nose_width * 0.52, identity.nose_y + 8, 4.6, 2.5)
        canvas.blend(nostril, scaled(identity.skin, 0.34), 1.0, 0.85)
        wing_x = CX + side * (identity.nose_width - 1)
        wing = curve(
            [
                (wing_x, identity.nose_y - 6),
                (wing_x + side * 3, identity.nose_y + 2),
                (wing_x - side, identity.nose_y + 8),
            ]
        )
        canvas.blend(wing, scaled(identity.skin, 0.7), 1.6, 0.8)
        x = CX + side * identity.eye_gap
        y = EYE_Y - identity.brow_height
        half, arch, thick = 23.0, identity.brow_arch, identity.brow_width
        inner = (x - side * half, y + 1 + identity.brow_tilt)
        peak = (x + side * 7, y - arch)
        tail = (x + side * (half + 3), y + 4)
        brow = curve(
            [
                (inner[0], inner[1] - thick * 0.45),
                (peak[0], peak[1] - thick * 0.5),
                tail,
                (peak[0], peak[1] + thick * 0.5),
                (inner[0], inner[1] + thick * 0.5),
            ]
        )
        canvas.blend(brow, identity.brow_colour, 0.9, 0.92)
        crease = shifted(eye_lids(identity, side, 0.0)[0], 0, -5)
        band = np.concatenate((crease, shifted(crease[::-1], 0, 1.8)))
        canvas.blend(band.astype(np.float32), scaled(identity.skin, 0.55), 0.8, 0.6)


def _paint_glasses(canvas: Canvas, identity: Identity) -> None:
    if identity.glasses == "none":
        return
    y = EYE_Y + 3
    for side in (-1, 1):
        x = CX + side * (identity.eye_gap + 0.5)
        if identity.glasses == "round":
            outer, inner = ellipse(x, y, 32, 28), ellipse(x, y, 28.4, 24.4)
        else:
            outer, inner = (rounded_box(x, y, 33 - d, 24 - d) for d in (0.0, 3.6))
        ring = np.concatenate((outer, outer[:1], inner[:1], inner[::-1]))
        canvas.blend(ring, identity.glasses_colour, 0.5, 0.95)
        temple = [(x + side * 31, y - 7), (CX + side * (identity.face_width + 4), y - 9)]
        bar = np.asarray([*temple, (temple[1][0], temple[1][1] + 4), (temple[0][0], temple[0][1] + 4)], np.float32)
        canvas.blend(bar, identity.glasses_colour, 0.5, 0.95)
    bridge = curve([(CX - 12, y - 4), (CX, y - 8), (CX + 12, y - 4), (CX, y - 4)])
    canvas.blend(bridge, identity.glasses_colour, 0.5, 0.95)
