"""What WebRTC sends: a sound track and a picture track, cut from the same slots at the same moments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame
from av.frame import Frame

from ...inputs.convert import to_int16
from ..visits.playout import Playout

# Opus knows no other rate inside WebRTC, and sends 20 ms per packet.
RATE = 48000
BLOCK = 960
# A sender that does not fetch loses the oldest; timestamps keep the rest in step.
_MOST_WAITING = 25
_LOST_SECONDS = 1.0


class _Track(MediaStreamTrack):
    """A track that is fed from outside."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self._frames: asyncio.Queue[tuple[float, Frame]] = asyncio.Queue(_MOST_WAITING)

    async def recv(self) -> Frame:
        """The next frame, at its time."""
        if self.readyState != "live":
            raise MediaStreamError
        due, frame = await self._frames.get()
        # The receiver learns from the time of sending which sound belongs to which picture.
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        return frame

    def put(self, frame: Frame, due: float) -> None:
        """Queue a frame for `due` on the event loop's clock, in place of the oldest if the queue is full."""
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait((due, frame))


class Outlet:
    """Takes a slot from the playout at each frame time and gives it to both tracks.

    Timestamps count from the start of the connection and never pause, whatever the slots hold.
    """

    def __init__(self, playout: Playout, fps: int, on_shown: Callable[[float], None]) -> None:
        """`on_shown` is told when what is sent was heard."""
        self.playout = playout
        self.sound, self.picture = _Track("audio"), _Track("video")
        self._fps, self._on_shown = fps, on_shown
        self._left = np.empty(0, np.float32)
        self._blocks = 0
        self._start = 0.0

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        self._start, index = loop.time(), 0
        while True:
            late = loop.time() - (self._start + index / self._fps)
            if late > _LOST_SECONDS:
                # The machine slept; what it missed is not sent in a burst.
                missed = int(late * self._fps)
                index += missed
                self._blocks += round(missed * RATE / self._fps / BLOCK)
            elif late < 0:
                await asyncio.sleep(-late)
            slot = self.playout.next()
            picture = VideoFrame.from_ndarray(slot.frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, self._fps)
            self.picture.put(picture, self._start + index / self._fps)
            self._put_sound(slot.sound)
            if slot.heard is not None:
                self._on_shown(slot.heard)
            index += 1

    def _put_sound(self, sound: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        self._left = np.concatenate([self._left, sound])
        while self._left.size >= BLOCK:
            block, self._left = self._left[:BLOCK], self._left[BLOCK:]
            frame = AudioFrame.from_ndarray(to_int16(block)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._blocks * BLOCK, Fraction(1, RATE)
            self.sound.put(frame, self._start + self._blocks * BLOCK / RATE)
            self._blocks += 1
