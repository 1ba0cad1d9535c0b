"""What WebRTC sends: a sound track and a picture track, cut from the same slots at the same moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame
from av.frame import Frame

from ...inputs.convert import to_int16
from ...session.stream_core import StreamFrame
from ..kiosk import SOUND_RATE as RATE

# Opus sends 20 ms per packet.
BLOCK = RATE // 50
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
    """Gives each frame to the one track and its sound to the other, when it comes.

    Timestamps count from the first frame and never pause, also where no frame came for a while.
    """

    def __init__(self, fps: int, on_shown: Callable[[StreamFrame], None]) -> None:
        """`on_shown` is told of every frame that is sent."""
        self.sound, self.picture = _Track("audio"), _Track("video")
        self._fps, self._on_shown = fps, on_shown
        self._left = np.empty(0, np.float32)
        self._blocks = 0
        self._start = 0.0

    async def run(self, frames: AsyncIterator[StreamFrame]) -> None:
        """Send until there are no more, each as soon as it comes; they are paced.

        Raises:
            NumericalError, EngineError: as the frames do.
        """
        loop = asyncio.get_running_loop()
        self._start, index = loop.time(), 0
        async for frame in frames:
            late = loop.time() - (self._start + index / self._fps)
            if late > _LOST_SECONDS:
                # The machine slept.
                missed = int(late * self._fps)
                index += missed
                self._blocks += round(missed * RATE / self._fps / BLOCK)
            picture = VideoFrame.from_ndarray(frame.picture, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, self._fps)
            self.picture.put(picture, self._start + index / self._fps)
            self._put_sound(frame.sound)
            self._on_shown(frame)
            index += 1

    def _put_sound(self, sound: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        self._left = np.concatenate([self._left, sound])
        while self._left.size >= BLOCK:
            block, self._left = self._left[:BLOCK], self._left[BLOCK:]
            frame = AudioFrame.from_ndarray(to_int16(block)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._blocks * BLOCK, Fraction(1, RATE)
            self.sound.put(frame, self._start + self._blocks * BLOCK / RATE)
            self._blocks += 1
