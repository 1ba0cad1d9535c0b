"""`Playout`: turns pieces that come in bursts into one frame and its sound per frame time.

Picture and sound leave in the same slot, so they cannot drift apart. When the next piece is late, slots with the
last frame and silence are given and everything after them is that much later; when more is waiting than needed,
silent slots are left out until the latency is back. The difference between two machines' clocks shows up as one
or the other.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .viewer import Piece

Samples = NDArray[np.float32]
Frame = NDArray[np.uint8]
# -50 dB of full scale.
_SILENCE = 3e-3
_WATCH_SECONDS = 5.0
_CUSHION_SECONDS = 0.12
_MOST_SECONDS = 4.0


@dataclass(frozen=True)
class Slot:
    """What is shown and heard during one frame time.

    Attributes:
        frame: uint8 [H, W, 3] RGB.
        sound: float32 [samples].
        heard: when the sound came in, on the event loop's clock; None while nothing is there to show.
    """

    frame: Frame
    sound: Samples
    heard: float | None


class Playout:
    """The queue of one viewer between rendering and sending."""

    def __init__(self, portrait: Frame, fps: int, rate: int) -> None:
        """Show `portrait`, uint8 [H, W, 3], until the first piece; `rate` is the sound's, in Hz."""
        self._frame, self._fps, self._rate = portrait, fps, rate
        self._queue: deque[Slot] = deque()
        self._given = 0
        self._cushion = math.ceil(_CUSHION_SECONDS * fps)
        self._hold = self._cushion
        self._least, self._watched, self._surplus = math.inf, 0, 0
        self.stalls = self.skipped = 0

    @property
    def waiting(self) -> int:
        """Slots that are ready."""
        return len(self._queue)

    def add(self, piece: Piece) -> None:
        """Queue a piece; what exceeds four seconds is skipped, oldest first."""
        for index, frame in enumerate(piece.frames):
            start, stop = (round(i * self._rate / self._fps) for i in (index, index + 1))
            sound = piece.sound[start:stop, 0]
            self._queue.append(Slot(frame, sound, piece.heard + index / self._fps))
        while len(self._queue) > _MOST_SECONDS * self._fps:
            self._skip()

    def next(self) -> Slot:
        """The slot of the next frame time."""
        samples = round((self._given + 1) * self._rate / self._fps) - round(self._given * self._rate / self._fps)
        self._given += 1
        self._watch()
        if self._hold and self._queue:
            self._hold -= 1
        elif self._queue:
            slot = self._queue.popleft()
            if self._surplus > 0 and self._queue and _silent(slot):
                # One of two, so that the picture quickens instead of jumping.
                self._surplus -= 1
                self.skipped += 1
                slot = self._queue.popleft()
            self._frame = slot.frame
            return Slot(slot.frame, _fitted(slot.sound, samples), slot.heard)
        elif not self._hold:
            self.stalls += 1
        return Slot(self._frame, np.zeros(samples, np.float32), None)

    def _watch(self) -> None:
        self._least = min(self._least, len(self._queue))
        self._watched += 1
        if self._watched >= _WATCH_SECONDS * self._fps:
            self._surplus = max(0, int(self._least) - self._cushion)
            self._least, self._watched = math.inf, 0

    def _skip(self) -> None:
        self._queue.popleft()
        self.skipped += 1


def _silent(slot: Slot) -> bool:
    return bool(np.abs(slot.sound).max(initial=0.0) < _SILENCE)


def _fitted(sound: Samples, samples: int) -> Samples:
    if sound.size >= samples:
        return sound[:samples]
    return np.concatenate([sound, np.zeros(samples - sound.size, np.float32)])
