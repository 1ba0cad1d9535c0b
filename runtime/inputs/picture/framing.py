"""A picture cut so that its face stands where a model wants it."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from ...spec import Framing
from .face import Face

Picture = NDArray[np.uint8]
# A face this near to where it should be stays: of its side, of the frame's shorter side, and in degrees.
_SIDE_OFF, _PLACE_OFF, _ANGLE_OFF = 0.3, 0.12, 9.0


def stands_well(face: Face, framing: Framing, height: int, width: int) -> bool:
    """Whether a face of a picture [height, width] is so near to the framing that cutting would only soften it."""
    shorter = min(height, width)
    off = max(abs(face.x - framing.face_x * width), abs(face.y - framing.face_y * height)) / shorter
    return (
        off <= _PLACE_OFF
        and abs(face.side / (framing.face_side * shorter) - 1.0) <= _SIDE_OFF
        and abs(face.angle) <= _ANGLE_OFF
    )


def framed(picture: Picture, face: Face, framing: Framing, height: int, width: int) -> Picture:
    """The picture turned upright and cut about its face; beyond its edge their colours go on.

    Args:
        picture: uint8 [H, W, 3] RGB.
        face: in it.
        framing: where the face is to stand.
        height, width: of the result, in pixels.

    Returns:
        uint8 [height, width, 3] RGB.
    """
    import cv2

    scale = framing.face_side * min(height, width) / face.side
    if scale < 1.0:
        # What is made smaller by sampling alone would lose pixels between the samples.
        size = (max(1, ceil(picture.shape[1] * scale)), max(1, ceil(picture.shape[0] * scale)))
        across, down = size[0] / picture.shape[1], size[1] / picture.shape[0]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        face = Face(face.x * across, face.y * down, face.side * across, face.angle)
        scale = framing.face_side * min(height, width) / face.side
    angle = face.angle if abs(face.angle) > _ANGLE_OFF else 0.0
    turn = cv2.getRotationMatrix2D((face.x, face.y), angle, scale)
    turn[:, 2] += np.array([framing.face_x * width - face.x, framing.face_y * height - face.y])
    cut = cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cut.astype(np.uint8, copy=False)
