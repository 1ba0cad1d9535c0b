"""Counts blinks from the frames alone, by the eyes' resemblance to the portrait's with closed lids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.identity import Identity
from ..data.portrait import CX, EYE_Y
from ..data.renderer import neutral_motion, render

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_SHUT, _OPEN = 0.5, 0.3


@dataclass(frozen=True)
class BlinkGauge:
    """Reads the lids of one identity.

    Attributes:
        rows, columns: where the eyes are.
        opened: float32, the eyes' pixels with open lids.
        closing: float32, the change of these pixels when the lids shut.
    """

    rows: slice
    columns: slice
    opened: Floats
    closing: Floats

    @classmethod
    def calibrate(cls, identity: Identity, size: int) -> BlinkGauge:
        """Draw the identity with open and with shut eyes, `size` pixels wide."""
        scale = size / 256
        reach_x, reach_y = identity.eye_gap + identity.eye_width + 4, identity.eye_height + 6
        rows = slice(round((EYE_Y - reach_y) * scale), round((EYE_Y + reach_y) * scale))
        columns = slice(round((CX - reach_x) * scale), round((CX + reach_x) * scale))
        opened = render(identity, neutral_motion(), size)[rows, columns].astype(np.float32)
        shut = render(identity, neutral_motion(blink=1.0), size)[rows, columns].astype(np.float32)
        return cls(rows, columns, opened, shut - opened)

    def closed(self, frames: Bytes) -> npt.NDArray[np.floating[Any]]:
        """How far the lids are shut in each of uint8 [T, size, size, 3]: 0 open to about 1 shut."""
        eyes = frames[:, self.rows, self.columns].astype(np.float32) - self.opened
        shut: npt.NDArray[np.floating[Any]] = (eyes * self.closing).sum((1, 2, 3)) / np.square(self.closing).sum()
        return shut


def count_blinks(closed: npt.ArrayLike) -> int:
    """How often the lids shut: rises above 0.5 that fall below 0.3 again or end the clip."""
    blinks, shut = 0, False
    for value in np.asarray(closed, np.float64):
        if not shut and value > _SHUT:
            blinks, shut = blinks + 1, True
        elif shut and value < _OPEN:
            shut = False
    return blinks
