"""The idle reel: some seconds of a face that says nothing, rendered as first shown, then to and fro at no cost.

A reel belongs to an avatar and a seed, and all streams over them share it. Each has a place of its own in it.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from ..loop.carry import LoopState

Frames = NDArray[np.uint8]
# What two frames are compared by, and what a stream's memory may grow to.
_THUMBNAIL = 32
_MOST_BYTES = 64 << 20
# Frames ahead of what is shown while the reel grows: what an interrupt may choose from at its start.
_AHEAD_FRAMES = 100


class IdleReel:
    """Chunks of settled silence, one following the other, with the loop's state between them."""

    def __init__(self, portrait: Frames, new_frames: int, chunks: int) -> None:
        """Show `portrait`, uint8 [H, W, 3], until the first of `chunks` chunks of `new_frames` frames is there."""
        self._portrait, self._new_frames = portrait, new_frames
        self._most = max(1, min(chunks, _MOST_BYTES // (portrait.nbytes * new_frames)))
        self._frames: tuple[Frames, ...] = ()
        self._thumbnails = np.empty((0, _THUMBNAIL * _THUMBNAIL * 3), np.float32)
        # Behind the first chunk of silence, which settles and is not shown, and behind every one that is.
        self._states: tuple[LoopState, ...] = ()
        self._lock = threading.Lock()

    @property
    def wants(self) -> LoopState | None:
        """What the next chunk of silence begins with; None where the reel is complete."""
        with self._lock:
            if len(self._frames) == self._most:
                return None
            return self._states[-1] if self._states else LoopState()

    def add(self, before: LoopState, frames: Frames, after: LoopState) -> None:
        """Take silence rendered from `before`, uint8 [new_frames, H, W, 3], unless another stream was first."""
        with self._lock:
            if not self._states:
                self._states = (after,)
            elif self._follows(before):
                self._thumbnails = np.concatenate([self._thumbnails, [_thumbnail(frame) for frame in frames]])
                frames.flags.writeable = False
                self._frames, self._states = (*self._frames, frames), (*self._states, after)

    def lacks(self, before: LoopState) -> bool:
        """Whether the chunk that begins with `before` is still to be rendered."""
        with self._lock:
            return not self._states or self._follows(before)

    def _follows(self, before: LoopState) -> bool:
        return before is self._states[-1] and len(self._frames) < self._most

    def __len__(self) -> int:
        """Frames that there are."""
        return len(self._frames) * self._new_frames

    def frame(self, place: int) -> Frames:
        """The frame at `place`, uint8 [H, W, 3]."""
        if not self._frames:
            return self._portrait
        frame: Frames = self._frames[place // self._new_frames][place % self._new_frames]
        return frame

    def nearest(self, picture: Frames) -> int:
        """The place of the frame that is most like `picture`, uint8 [H, W, 3]; 0 where there is none."""
        if not self._frames:
            return 0
        apart = np.square(self._thumbnails - _thumbnail(picture)).mean(axis=1)
        return int(np.argmin(apart))

    def seam(self, place: int) -> tuple[int, LoopState]:
        """The seam between chunks that lies nearest to `place`, and the loop's state there."""
        states = self._states
        if not states:
            return 0, LoopState()
        at = min(round(place / self._new_frames), len(states) - 1)
        return min(at * self._new_frames, max(len(self) - 1, 0)), states[at]


class ReelPlayer:
    """One stream's place in a reel."""

    def __init__(self, reel: IdleReel) -> None:
        """Begin at the reel's start."""
        self._reel, self.place, self._step = reel, 0, 1
        self._goal: int | None = None

    @property
    def wants(self) -> LoopState | None:
        """What the reel's next chunk begins with; None where enough lies ahead, or the reel is complete."""
        return self._reel.wants if len(self._reel) - self.place < _AHEAD_FRAMES else None

    def next(self) -> Frames:
        """The frame to show now, uint8 [H, W, 3]: to and fro, or towards the goal."""
        frame = self._reel.frame(self.place)
        count = len(self._reel)
        if self._goal is not None:
            self.place += (self._goal > self.place) - (self._goal < self.place)
        elif count > 1:
            if not 0 <= self.place + self._step < count:
                self._step = -self._step
            self.place += self._step
        return frame

    def jump_near(self, picture: Frames) -> None:
        """Go on from the frame that is most like `picture`."""
        self.place, self._goal = self._reel.nearest(picture), None

    def head_for_seam(self) -> LoopState:
        """Go to the nearest seam and stay there; returns the loop's state at it."""
        self._goal, state = self._reel.seam(self.place)
        return state

    def wander(self) -> None:
        """Go to and fro again."""
        self._goal = None


def _thumbnail(picture: Frames) -> NDArray[np.float32]:
    height, width, _ = picture.shape
    rows = np.linspace(0, height, _THUMBNAIL, endpoint=False).astype(int)
    columns = np.linspace(0, width, _THUMBNAIL, endpoint=False).astype(int)
    summed = np.add.reduceat(np.add.reduceat(picture, rows, axis=0, dtype=np.float32), columns, axis=1)
    flat: NDArray[np.float32] = summed.reshape(-1) * np.float32(_THUMBNAIL**2 / (height * width))
    return flat
