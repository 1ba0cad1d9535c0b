"""Whether the joints of a stream can be seen: change across them over change elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MeasureError

Bytes = npt.NDArray[np.uint8]


def seam_ratio(frames: Bytes, boxes: npt.NDArray[np.integer[Any]], period: int) -> float:
    """Mean change across joints over the mean change elsewhere, outside the mouth; 1 means unseen joints.

    Args:
        frames: uint8 [T, H, W, 3], the first one at a joint.
        boxes: [T, 4], (x0, y0, x1, y1) of the mouth.
        period: frames from joint to joint, of chunks or of latents.

    Raises:
        MeasureError: there is no joint, or nothing but joints.
    """
    if len(frames) <= period or period < 2:
        raise MeasureError(f"{len(frames)} frames hold no joint of every {period}; measure a longer clip.")
    x0, y0 = boxes[:, :2].min(0)
    x1, y1 = boxes[:, 2:].max(0)
    change = np.empty(len(frames) - 1)
    for index in range(len(change)):
        moved = np.abs(frames[index + 1].astype(np.int16) - frames[index]).astype(np.float32)
        moved[y0:y1, x0:x1] = 0
        change[index] = moved.mean()
    joints = np.arange(period - 1, len(change), period)
    return float(change[joints].mean() / max(float(np.delete(change, joints).mean()), 1e-6))
