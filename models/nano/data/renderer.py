"""Renders a portrait with the head, eyes and mouth of a motion row, and says where the mouth is.

A frame copies the identity's canonical painting, draws the eyes and the mouth on it, and bends it with a smooth
displacement field (head pose and jaw). Inner coordinates are in units of 1/256 of the picture side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rap_edge.runtime.checks.bounds import SEEDS, Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.errors import OutputError

from ..errors import RenderError

with program_needs_extra("train", __name__):
    import cv2

    from .drawing import (
        MARGIN,
        OVERSAMPLE,
        WIDE_MARGIN,
        Bytes,
        Colour,
        Floats,
        ellipse,
        fill,
        mix,
        scaled,
        shifted,
        smoothstep,
    )
    from .identity import Identity
    from .portrait import CX, EYE_Y, MOUTH_Y, eye_lids, paint
    from .view import View


UPRIGHT = View()
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
IRIS_REACH = np.array((6.0, 3.0), np.float32)  # how far a gaze of 1 moves the irises, in 1/256 of the side


def neutral_motion(**values: float) -> Floats:
    """One motion row, float32 [13]: closed mouth, open eyes, head straight, but for the named columns.

    Raises:
        RenderError: a name is not in `MOTION_COLUMNS`.
    """
    row = np.zeros(len(MOTION_COLUMNS), np.float32)
    for name, value in values.items():
        if name not in MOTION_COLUMNS:
            raise RenderError(f"'{name}' is not a motion column; use one of {', '.join(MOTION_COLUMNS)}.")
        row[MOTION_COLUMNS.index(name)] = value
    return row


def render(identity: Identity, motion_row: npt.ArrayLike, size: int = 256, view: View = UPRIGHT) -> Bytes:
    """Draw one frame.

    Args:
        identity: who.
        motion_row: float [13], columns `MOTION_COLUMNS`.
        size: side of the picture in pixels, a positive multiple of 64.
        view: framing and light.

    Returns:
        uint8 [size, size, 3], RGB.

    Raises:
        RenderError: the row has another length or is not finite, or the size is not a positive multiple of 64.
    """
    motion = _checked(motion_row)
    if size <= 0 or size % 64:
        raise RenderError(f"Size {size} cannot be drawn; use a positive multiple of 64.")
    margin = WIDE_MARGIN if view.reframes else MARGIN
    canvas = paint(identity, size, margin).copy()
    scale = OVERSAMPLE * size / 256
    _draw_eyes(canvas, identity, motion, scale, margin)
    _draw_mouth(canvas, identity, motion, scale, margin)
    framing = replace(UPRIGHT, scale=view.scale, angle=view.angle, shift_x=view.shift_x, shift_y=view.shift_y)
    amounts = np.concatenate((motion[5:10], motion[:1]))
    displacement = np.tensordot(amounts, _grid_fields(framing), 1)
    bend = cv2.resize(displacement * scale, (size, size), interpolation=cv2.INTER_LINEAR)
    x, y = cv2.split(_canonical(size, framing) - bend)
    frame = np.asarray(cv2.remap(canvas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    return view.illuminate(frame)


def mouth_box(
    identity: Identity, motion_row: npt.ArrayLike, size: int = 256, view: View = UPRIGHT
) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1), ends excluded, that contain both lips in `render`'s picture.

    Raises:
        RenderError: the row has another length or is not finite.
    """
    motion = _checked(motion_row)
    return _box(_mouth_shape(identity, motion).outer, motion, size, view)


def eye_box(
    identity: Identity, motion_row: npt.ArrayLike, size: int = 256, view: View = UPRIGHT
) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1), ends excluded, that contain both eyes with their lashes in `render`'s picture.

    Raises:
        RenderError: the row has another length or is not finite.
    """
    reach = identity.eye_gap + identity.eye_width + 3, identity.eye_height + 5
    corners = [(CX + x * reach[0], EYE_Y + y * reach[1]) for x in (-1, 1) for y in (-1, 1)]
    return _box(np.array(corners, np.float32), _checked(motion_row), size, view)


def flow_between(portrait_row: npt.ArrayLike, motion_row: npt.ArrayLike, side: int, view: View = UPRIGHT) -> Floats:
    """Where a portrait shows what a frame of the same face shows, but for eyes and mouth, which slide over the face.

    Args:
        portrait_row, motion_row: float [13] each.
        side: cells along height and width.
        view: framing of both.

    Returns:
        float32 [side, side, 2], x and y in half sides from the middle of each cell of the frame to the place in the
        portrait; without meaning where the frame shows what the portrait hides.
    """
    painted = _painted(_checked(motion_row), side, view)
    return _seen(painted, _checked(portrait_row), side, view)


def part_flow(
    identity: Identity, portrait_row: npt.ArrayLike, motion_row: npt.ArrayLike, side: int, view: View = UPRIGHT
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Where a portrait with a closed mouth shows what a frame of the same face shows of the irises and lips.

    Args:
        identity: whose they are.
        portrait_row, motion_row: float [13] each.
        side: cells along height and width.
        view: framing of both.

    Returns:
        Flow as `flow_between` tells it, float32 [side, side, 2], and where it has a meaning, bool [side, side].
    """
    still, moved = _checked(portrait_row), _checked(motion_row)
    painted = _painted(moved, side, view)
    source, there = painted.copy(), np.zeros((side, side), bool)
    looked = (moved[11:] - still[11:]) * IRIS_REACH
    for side_of in (-1, 1):
        centre = _iris(identity, moved, side_of)
        upper, lower = (lid[::side_of] for lid in eye_lids(identity, side_of, float(np.clip(moved[10], 0, 1))))
        inside = np.square(painted - centre).sum(-1) < _iris_radius(identity) ** 2
        inside &= painted[..., 1] > np.interp(painted[..., 0], upper[:, 0], upper[:, 1]) + 1
        inside &= painted[..., 1] < np.interp(painted[..., 0], lower[:, 0], lower[:, 1])
        source[inside] -= looked
        there |= inside
    now, before = _mouth_shape(identity, moved), _mouth_shape(identity, still)
    for one, other in ((now.upper_lip, before.upper_lip), (now.lower_lip, before.lower_lip)):
        count = len(one) // 2
        edges, origins = ((ring[:count], ring[: count - 1 : -1]) for ring in (one, other))
        x, y = painted[..., 0], painted[..., 1]
        top, bottom = (np.interp(x, edge[:, 0], edge[:, 1]) for edge in edges)
        share = (y - top) / np.maximum(bottom - top, 1e-3)
        inside = (x > edges[0][1, 0]) & (x < edges[0][-2, 0]) & (share > 0.05) & (share < 0.95)
        x0 = CX + (x - CX) * (origins[0][-1, 0] - CX) / (edges[0][-1, 0] - CX)
        top, bottom = (np.interp(x0, edge[:, 0], edge[:, 1]) for edge in origins)
        source[inside] = np.stack((x0, top + share * (bottom - top)), -1)[inside]
        there |= inside
    return _seen(source, still, side, view), there


def pose_fields(size: int) -> Floats:
    """How yaw, pitch, roll, shift_x and shift_y move every pixel, float32 [5, size, size, 2], in 1/256 of the side."""
    return _fields(_grid(size))[:-1]


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


def _painted(motion: Floats, side: int, view: View) -> Floats:
    """What every cell of a frame shows of the canvas that it was bent from, [side, side, 2]."""
    drawn = view.find(_grid(side))
    return drawn - _displacement(drawn, motion)


def _seen(painted: Floats, motion: Floats, side: int, view: View) -> Floats:
    """From every cell to where the picture with this motion shows these places of its canvas, in half sides."""
    shown = painted
    for _ in range(4):
        shown = painted + _displacement(shown, motion)
    return np.asarray((view.place(shown) - _grid(side)) / 128.0, np.float32)


def _iris(identity: Identity, motion: Floats, side: int) -> Floats:
    """The middle of the iris of the left (-1) or right (1) eye on the canvas, [2]."""
    rest = CX + side * identity.eye_gap, EYE_Y + 0.2 - 0.1 * identity.eye_height
    return np.asarray(rest, np.float32) + motion[11:] * IRIS_REACH


def _iris_radius(identity: Identity) -> float:
    return identity.eye_height * 0.92


def _checked(motion_row: npt.ArrayLike) -> Floats:
    motion = np.asarray(motion_row, np.float32)
    if motion.shape != (len(MOTION_COLUMNS),) or not np.isfinite(motion).all():
        raise RenderError(f"A motion row needs {len(MOTION_COLUMNS)} finite numbers; got shape {motion.shape}.")
    return motion


@lru_cache(maxsize=8)
def _grid(side: int) -> Floats:
    centres = (np.arange(side, dtype=np.float32) + 0.5) * (256.0 / side)
    grid = np.stack(np.meshgrid(centres, centres), -1).astype(np.float32)
    grid.setflags(write=False)
    return grid


@lru_cache(maxsize=8)
def _canonical(size: int, framing: View) -> Floats:
    margin = WIDE_MARGIN if framing.reframes else MARGIN
    pixels = (framing.find(_grid(size)) + margin) * (OVERSAMPLE * size / 256) - 0.5
    pixels.setflags(write=False)
    return np.asarray(pixels, np.float32)


@lru_cache(maxsize=8)
def _grid_fields(framing: View) -> Floats:
    fields = _fields(framing.find(_grid(64)))
    fields.setflags(write=False)
    return fields


def _fields(points: Floats) -> Floats:
    """Displacement [6, ..., 2] of every point per unit of yaw, pitch, roll, shift_x, shift_y and mouth_open."""
    x, y = points[..., 0], points[..., 1]
    radius = np.sqrt(((x - CX) / 104) ** 2 + ((y - 118) / 128) ** 2)
    head = 0.3 + 0.7 * (1 - smoothstep(radius, 0.9, 1.75))
    nose = np.exp(-(((x - CX) / 20) ** 2) - ((y - 144) / 20) ** 2)
    depth = np.exp(-1.1 * radius**2) * 1.1 - 0.15 + 0.25 * nose
    jaw = smoothstep(y, 186, 232) * np.exp(-(((x - CX) / 72) ** 4)) * (1 - 0.8 * smoothstep(y, 236, 285))
    zero = np.zeros_like(x)
    fields = (
        (8.5 * depth, zero),
        (zero, 6.5 * depth),
        (-0.06 * head * (y - 215), 0.06 * head * (x - CX)),
        (5 * head, zero),
        (zero, 4 * head),
        (zero, 11 * jaw),
    )
    return np.stack([np.stack(field, -1) for field in fields]).astype(np.float32)


def _displacement(points: Floats, motion: Floats) -> Floats:
    amounts = np.concatenate((motion[5:10], motion[:1]))
    return np.asarray(np.tensordot(amounts, _fields(points), 1), np.float32)


def _box(outline: Floats, motion: Floats, size: int, view: View) -> tuple[int, int, int, int]:
    """The pixels around painted points [n, 2] in the picture."""
    points = outline
    for _ in range(3):
        points = outline + _displacement(points, motion)
    points = view.place(points)
    low = np.floor((points.min(0) - 1.5) * size / 256).astype(int)
    high = np.ceil((points.max(0) + 1.5) * size / 256).astype(int)
    x0, y0 = np.clip(low, 0, size)
    x1, y1 = np.clip(high, 0, size)
    return int(x0), int(y0), int(x1), int(y1)


def _draw_eyes(canvas: Bytes, identity: Identity, motion: Floats, scale: float, margin: float) -> None:
    blink = float(np.clip(motion[10], 0, 1))
    for side in (-1, 1):
        upper, lower = eye_lids(identity, side, blink)
        x, y = CX + side * identity.eye_gap, EYE_Y + 1
        reach = (identity.eye_width + 7, identity.eye_height + 8)
        low = np.floor((np.asarray((x - reach[0], y - reach[1])) + margin) * scale).astype(int)
        extent = np.ceil(np.asarray(reach) * 2 * scale).astype(int)
        window = canvas[low[1] : low[1] + extent[1], low[0] : low[0] + extent[0]]
        offset = (low[0] / scale - margin, low[1] / scale - margin)
        height, width = window.shape[:2]
        fine = 2 * scale
        white = 232 if sum(identity.skin) > 420 else 222
        image = np.empty((height * 2, width * 2, 3), np.uint8)
        image[:] = (white, white - 4, white - 6)
        iris_x, iris_y = (float(value) for value in _iris(identity, motion, side))
        radius = _iris_radius(identity)
        fill(image, ellipse(iris_x, iris_y, radius, radius, 28), scaled(identity.iris, 0.6), fine, offset)
        fill(image, ellipse(iris_x, iris_y + 0.6, radius * 0.84, radius * 0.84, 28), identity.iris, fine, offset)
        fill(image, ellipse(iris_x, iris_y, radius * 0.46, radius * 0.46, 20), (18, 14, 14), fine, offset)
        glint = ellipse(iris_x + 3.2 * np.sign(identity.light), iris_y - 3.4, 2.3, 2.3, 16)
        fill(image, glint, (250, 250, 250), fine, offset)
        # The lid's shadow on the ball, then the lash line that tapers to both corners.
        bow = (1 - np.linspace(-1, 1, 17) ** 2)[:, None]
        shadow = np.concatenate((upper - (0, 2), (upper + bow * (0, 3.2))[::-1])).astype(np.float32)
        veil = image.copy()
        fill(veil, shadow, (120, 100, 96), fine, offset)
        cv2.addWeighted(image, 0.6, veil, 0.4, 0, dst=image)
        mask = np.zeros((height * 2, width * 2), np.uint8)
        fill(mask, np.concatenate((upper, lower[::-1])), 255, fine, offset)
        lash = np.concatenate((shifted(upper, 0, 0.9), (upper - (0, 0.6) - bow * (0, 2.0))[::-1])).astype(np.float32)
        fill(image, lash, (38, 26, 24), fine, offset)
        fill(mask, lash, 255, fine, offset)
        colour = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        coverage = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
        base = window.astype(np.float32)
        window[:] = np.clip(base + (colour - base) * coverage + 0.5, 0, 255)


def _mouth_shape(identity: Identity, motion: Floats) -> _MouthShape:
    opened, wide, rounded = (float(np.clip(value, 0, 1)) for value in motion[:3])
    half = identity.mouth_width * (1 + 0.13 * wide - 0.30 * rounded * (1 - 0.3 * wide)) - 3.0 * opened
    t = np.linspace(-1, 1, 33, dtype=np.float32)
    x = CX + half * t
    lift = (identity.smile + 2.5 * wide) * (1 - rounded)
    seam = MOUTH_Y + 1.5 - lift * (np.abs(t) ** 2 - 0.2)
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

    def ring(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Floats:
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


def _draw_mouth(canvas: Bytes, identity: Identity, motion: Floats, scale: float, margin: float) -> None:
    shape = _mouth_shape(identity, motion)
    low = np.floor((shape.outer.min(0) + margin - np.array((9, 6))) * scale).astype(int)
    high = np.ceil((shape.outer.max(0) + margin + np.array((9, 16))) * scale).astype(int)
    window = canvas[low[1] : high[1], low[0] : high[0]]
    offset = (low[0] / scale - margin, low[1] / scale - margin)
    height, width = window.shape[:2]
    fine = 2 * scale
    image = np.empty((height * 2, width * 2, 3), np.uint8)
    image[:] = np.asarray(scaled(identity.lips, 0.88), np.uint8)
    fill(image, shape.lower_lip, identity.lips, fine, offset)
    bottom = float(shape.outer[:, 1].max())
    middle = float(shape.lower[16, 1])
    shine_y = middle + 0.45 * (bottom - middle)
    half = float(shape.outer[:, 0].max()) - CX
    for grow, amount in ((1.0, 0.07), (0.72, 0.09), (0.45, 0.11)):
        shine = ellipse(CX + 4 * identity.light, shine_y, half * 0.5 * grow, 0.34 * (bottom - middle) * grow, 24)
        fill(image, shine, mix(identity.lips, (255, 240, 236), amount * 2.2), fine, offset)
    fill(image, shape.inner, (66, 12, 20), fine, offset)
    _draw_inner_mouth(image, shape, motion, fine, offset)
    mask = np.zeros((height * 2, width * 2), np.uint8)
    fill(mask, shape.outer, 255, fine, offset)
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
        fill(image, np.concatenate((edge[there], other[there][::-1])).astype(np.float32), colour, fine, offset)

    # A dark rim under the tongue and none of it in a small opening: the gap stays visible between the lips.
    floor = lower - np.stack((np.zeros_like(gap), 0.08 * gap), -1)
    rise = np.minimum((5 + 14 * tongue) * np.maximum(1 - (t / 0.78) ** 2, 0) ** 0.6, np.maximum(0.5 * gap - 6, 0))
    strip(floor, -rise, (164, 58, 68))
    strip(floor, -np.maximum(rise - 3.0, 0) * np.maximum(1 - (t / 0.5) ** 2, 0), (184, 76, 84))
    arch = np.maximum(1 - (t / 0.9) ** 2, 0) ** 0.4
    strip(upper, np.minimum((2.5 + 8 * teeth) * arch, 0.4 * gap) * min(1.0, 4 * teeth), (240, 234, 222))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a contact sheet of random portraits: `python -m rap_edge.models.nano.data.renderer sheet.png`."""
    return exit_status("renderer", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description="Write a contact sheet of random portraits as PNG.")
    parser.add_argument("out", type=Path, help="path of the PNG")
    parser.add_argument("--columns", type=argument(Whole(1, 64)), default=6)
    parser.add_argument("--rows", type=argument(Whole(1, 64)), default=4)
    parser.add_argument("--seed", type=argument(SEEDS), default=0)
    parser.add_argument(
        "--size",
        type=argument(Whole(64, 4096, "pixels")),
        default=256,
        help="side of one portrait in pixels, a multiple of 64",
    )
    options = parser.parse_args(arguments)
    sheet = contact_sheet(options.columns, options.rows, options.seed, options.size)
    if options.out.suffix != ".png" or not cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise OutputError(f"Cannot write '{options.out}'; name a .png file in a folder that exists.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
