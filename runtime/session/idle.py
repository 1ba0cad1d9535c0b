"""Idle motion in silence: a rendered chunk is shown again instead of rendering.

A chunk of settled silence (the one before was silent too, so the mouth is closed from its first frame) is shown
backwards, and forwards again, before the next one is rendered. The face is then where the chunk began or ended, and
the latents that were carried there are put back, so what is rendered next joins on without a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..loop.carry import Past

Frames = NDArray[np.uint8]


class IdleReplay:
    """Shows a chunk of settled silence again, alternately backwards and forwards."""

    def __init__(self, replays: int) -> None:
        """Replay a rendered chunk `replays` times; 0 never does."""
        self._replays = replays
        self._silent_before = False
        self._left = 0
        self._frames: Frames | None = None
        self._ends: tuple[Past | None, Past | None] = (None, None)

    def replay(self, silent: bool) -> tuple[Frames, Past | None] | None:
        """The frames of the next chunk and the past that the one after it begins with; None says: render.

        Call it once per chunk, before rendering.
        """
        if not silent or self._left == 0 or self._frames is None:
            self._left = 0
            self._frames = None
            return None
        self._left -= 1
        self._frames = self._frames[::-1]
        self._ends = (self._ends[1], self._ends[0])
        return self._frames.copy(), self._ends[1]

    def rendered(self, frames: Frames, silent: bool, before: Past | None, after: Past | None) -> None:
        """Take note of a rendered chunk at the full frame rate and of the pasts at its ends."""
        if silent and self._silent_before and self._replays:
            self._left, self._frames, self._ends = self._replays, frames.copy(), (before, after)
        self._silent_before = silent

    def reset(self) -> None:
        """A chunk was left out: nothing is settled."""
        self._silent_before, self._left, self._frames = False, 0, None
