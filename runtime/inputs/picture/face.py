"""Where the face is in a picture, found by OpenCV's cascades, whose data come inside its wheel (extra `face`).

Source of the detector: Lienhart and Maydt, "An extended set of Haar-like features" (2002), trained for upright frontal
faces; a turned one is found by turning the picture.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import cos, hypot, radians, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
_WORKING_SIDE = 320
_CONTRAST, _PARTS = 3.0, 8
_ANGLES = range(-60, 61, 12)
# Degrees from upright up to which the detector sees a face.
_SEEN_TURNED = 24.0
# Of its side, within which two findings are of the same face.
_SAME = 0.35
# A cascade keeps what it is looking at in itself: two threads at a time end in an error of OpenCV's.
_SEARCHING = threading.Lock()


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        x, y: its centre in pixels from the left and from above.
        side: of the square around brows, cheeks and chin, in pixels.
        angle: by which it is turned clockwise, in degrees.
    """

    x: float
    y: float
    side: float
    angle: float


def can_find_faces() -> bool:
    """Whether the detector is installed, with its data."""
    return find_spec("cv2") is not None and _cascade() is not None


def find_face(picture: Picture) -> Face | None:
    """The most certain face in uint8 [H, W, 3] RGB, None where there is none, or no detector is installed."""
    cascade = _cascade() if find_spec("cv2") is not None else None
    if cascade is None:
        return None
    import cv2

    height, width = picture.shape[:2]
    scale = _WORKING_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    # Evened out by parts, so that a dark face on a light ground has its contrast too.
    grey = cv2.createCLAHE(_CONTRAST, (_PARTS, _PARTS)).apply(grey)
    found: list[tuple[float, Face]] = []
    for angle in _ANGLES:
        turned, back = _turned(grey, angle)
        with _SEARCHING:
            boxes, _, weights = cascade.detectMultiScale3(
                turned, scaleFactor=1.08, minNeighbors=4, minSize=(_WORKING_SIDE // 10,) * 2, outputRejectLevels=True
            )
        for (left, top, side, _), weight in zip(boxes, weights, strict=True):
            x, y = back @ np.array([left + side / 2, top + side / 2, 1.0])
            face = Face(float(x) / scale, float(y) / scale, float(side) / scale, float(angle))
            found.append((float(np.ravel(weight)[0]), face))
    return _mean(found)


def _mean(found: list[tuple[float, Face]]) -> Face | None:
    """The face that was found at the most angles: the detector sees it up to as far from upright on either side."""
    groups = []
    for _, first in found:
        near = [(w, f) for w, f in found if _same(first, f)]
        groups.append((sum(weight for weight, _ in near), near))
    if not groups:
        return None
    _, near = max(groups, key=lambda group: group[0])
    # Now and then it also takes a hairline for brows, far from the face's own angle.
    upright = float(np.median([face.angle for _, face in near]))
    near = [(weight, face) for weight, face in near if abs(face.angle - upright) <= _SEEN_TURNED]
    total = sum(weight for weight, _ in near)
    x, y, side, angle = (
        sum(weight * getattr(face, name) for weight, face in near) / total for name in ("x", "y", "side", "angle")
    )
    return Face(x, y, side, angle)


def _same(face: Face, other: Face) -> bool:
    return hypot(face.x - other.x, face.y - other.y) < _SAME * face.side and 0.6 < other.side / face.side < 1.6


def _turned(grey: NDArray[Any], angle: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The picture turned anticlockwise about its centre on a canvas that holds all of it, and the way back [2, 3]."""
    import cv2

    height, width = grey.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    c, s = abs(cos(radians(angle))), abs(sin(radians(angle)))
    wide, high = round(width * c + height * s), round(width * s + height * c)
    turn[:, 2] += (wide - width) / 2, (high - height) / 2
    turned = cv2.warpAffine(grey, turn, (wide, high), borderMode=cv2.BORDER_REPLICATE)
    return turned, np.asarray(cv2.invertAffineTransform(turn), np.float64)


@cache
def _cascade() -> Any:
    """The detector, None where OpenCV comes without its data."""
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    if not hasattr(cv2, "CascadeClassifier"):
        return None
    cascade = cv2.CascadeClassifier(f"{folder}haarcascade_frontalface_alt2.xml")
    return None if cascade.empty() else cascade
