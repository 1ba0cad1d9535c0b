"""What must not change when a portrait speaks: the colours of iris, lips and clothes, and the sharpness of what stands.

Where a colour is, the renderer tells: it draws the portrait again with another one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..data.identity import Identity
from ..data.renderer import eye_box, mouth_box, neutral_motion, render
from ..data.view import View
from ..errors import MeasureError

Bytes = npt.NDArray[np.uint8]

PARTS = ("iris", "lips", "clothes")
_PLAIN = 40  # levels that a picture changes by where it is wholly of the part


def part_masks(identity: Identity, size: int, view: View | None = None) -> dict[str, npt.NDArray[np.bool_]]:
    """Where the portrait shows nothing but its iris, lips or clothes, bool [size, size] each; some may be empty."""
    seen = view or View()
    plain = dataclasses.replace(seen, saturation=1.0, gain=(1.0, 1.0, 1.0), gamma=1.0)
    drawn = render(identity, neutral_motion(), size, plain).astype(np.int16)
    masks = {}
    for part in PARTS:
        red, green, blue = getattr(identity, part)
        other_colour: Any = ((red + 90) % 256, (green + 90) % 256, (blue + 90) % 256)
        other = dataclasses.replace(identity, **{part: other_colour})
        change = np.abs(render(other, neutral_motion(), size, plain).astype(np.int16) - drawn).min(-1)
        masks[part] = cv2.erode((change > _PLAIN).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return masks


def colour_errors(
    portrait: Bytes, frames: Bytes, masks: dict[str, npt.NDArray[np.bool_]], least: int = 12
) -> dict[str, float]:
    """How many levels each part is away from the portrait's colour, at most over red, green and blue.

    Args:
        portrait: uint8 [H, W, 3].
        frames: uint8 [T, H, W, 3] with closed mouth and open eyes that look ahead, the head as in the portrait.
        masks: see `part_masks`; a part of fewer than `least` pixels is left out.

    Raises:
        MeasureError: there are no frames, or their shape is not the portrait's.
    """
    if frames.shape[1:] != portrait.shape or not len(frames):
        raise MeasureError(f"Frames of shape {frames.shape} do not fit a portrait of shape {portrait.shape}.")
    average = frames.astype(np.float64).mean(0)
    errors = {}
    for part, mask in masks.items():
        if mask.sum() >= least:
            errors[part] = float(np.abs(average[mask].mean(0) - portrait[mask].mean(0)).max())
    return errors


def sharpness(portrait: Bytes, frames: Bytes, identity: Identity, view: View | None = None) -> float:
    """Detail of the frames' static parts over the portrait's: the deviation of what a blur of 1.5 pixels takes away.

    Mouth, eyes and what is near them are left out.
    """
    size = portrait.shape[0]
    seen = view or View()
    static = np.ones((size, size), bool)
    for box, margin in ((mouth_box, size // 12), (eye_box, size // 20)):
        x0, y0, x1, y1 = box(identity, neutral_motion(mouth_open=0.6), size, seen)
        static[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = False

    def detail(picture: Bytes) -> float:
        fine = picture.astype(np.float32) - cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.5)
        return float(fine[static].std())

    return float(np.mean([detail(frame) for frame in frames])) / max(detail(portrait), 1e-6)
