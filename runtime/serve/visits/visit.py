"""`Visit`: one admitted visitor, whatever the transport: a place, a viewer, an idle clock and figures."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...avatar import Avatar
from ...session.chunk import Mark
from ..admission import Place
from ..metrics import Metrics
from ..portraits import Portrait
from .viewer import Piece, Viewer

# -45 dB of full scale: above a room, below speech.
_VOICE = 5.6e-3
_GONE_SECONDS = 3.0
_RECENT_CHUNKS = 3
_WORSE = [Mark.GOOD, Mark.REDUCED, Mark.HELD]
# A microphone that is muted still sends; one that is gone does not.
_LINE_SECONDS = 15.0


@dataclass(frozen=True)
class End:
    """Why a visit is over.

    Attributes:
        reason: one word for programs.
        message: a sentence for the visitor.
        code: the WebSocket's close code (RFC 6455, section 7.4).
    """

    reason: str
    message: str
    code: int = 1000


LEFT = End("left", "The visitor has left.")
FINISHED = End("finished", "The audio has ended and everything was rendered.")
STOPPING = End("stopping", "The kiosk is being switched off; come back later.", 1001)
IDLE = End("idle", "Nobody has spoken for a while, so the place was given back; start again when you like.")
LINE_LOST = End("line-lost", "No sound arrives any more; check the microphone and start again.", 1008)


class Visit:
    """Used from the event loop; `end` may be called any number of times, the first reason stays."""

    def __init__(
        self,
        transport: str,
        portrait: Portrait,
        viewer: Viewer,
        place: Place,
        metrics: Metrics,
        idle_seconds: float,
        on_close: Callable[[Visit], None],
    ) -> None:
        """Made by `Kiosk.open_visit`."""
        self.id = secrets.token_urlsafe(12)
        self.transport, self.portrait = transport, portrait
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.latency: float | None = None
        self.rtf: float | None = None
        self.chunks = self.late_chunks = 0
        self._marks: deque[Mark] = deque(maxlen=_RECENT_CHUNKS)
        self._viewer, self._place, self._metrics = viewer, place, metrics
        self._idle_seconds, self._on_close = idle_seconds, on_close
        self._spoken = self._line = asyncio.get_running_loop().time()
        self._gone = asyncio.Event()

    @property
    def avatar(self) -> Avatar:
        """The model with the visitor's portrait."""
        return self.portrait.avatar

    @property
    def sound_rate(self) -> int:
        """Of the sound in the pieces, in Hz."""
        return self._viewer.sound_rate

    def hear(self, pcm: NDArray[np.float32]) -> None:
        """Take float32 [samples]; dropped and counted when the visit is too far behind."""
        now = asyncio.get_running_loop().time()
        self._line = max(self._line, now)
        if pcm.size and float(np.sqrt(np.mean(np.square(pcm)))) > _VOICE:
            self._spoken = max(self._spoken, now)
        self._viewer.push(pcm)

    async def room(self) -> None:
        """Wait until no sample would be dropped."""
        await self._viewer.room()

    def finish(self) -> None:
        """No more samples will come; from now on silence is no reason to end."""
        self._spoken = self._line = math.inf
        self._viewer.finish()

    async def pieces(self) -> AsyncIterator[Piece]:
        """What was rendered; see `Viewer.pieces`."""
        seconds = self.avatar.spec.chunk_seconds
        async for piece in self._viewer.pieces():
            if piece.mark is not Mark.HELD:
                rtf = piece.render_seconds / seconds
                self.rtf = rtf if self.rtf is None else 0.7 * self.rtf + 0.3 * rtf
            self.chunks += 1
            self.late_chunks += piece.late
            self._marks.append(piece.mark)
            self._metrics.chunks.add()
            self._metrics.late_chunks.add(piece.late)
            self._metrics.marks.add(label=piece.mark)
            self._metrics.frames.add(len(piece.frames))
            self._metrics.render.observe(piece.render_seconds)
            yield piece

    def shown(self, heard: float) -> None:
        """Note that something that came in at `heard` has just been sent."""
        latency = asyncio.get_running_loop().time() - heard
        self.latency = latency if self.latency is None else 0.9 * self.latency + 0.1 * latency

    def count_slots(self, stalls: int, skipped: int) -> None:
        """Note the frame times without a new frame and the frames left out."""
        self._metrics.stalled_slots.add(stalls)
        self._metrics.skipped_slots.add(skipped)

    def figures(self) -> dict[str, Any]:
        """For the page: from the microphone's sample to its picture's departure, the real-time factor, the quality."""
        return {
            "type": "stats",
            "latency_ms": None if self.latency is None else round(1e3 * self.latency),
            "rtf": None if self.rtf is None else round(self.rtf, 3),
            "chunks": self.chunks,
            "late_chunks": self.late_chunks,
            "quality": max(self._marks, key=_WORSE.index, default=Mark.GOOD),
            "dropped_seconds": round(self._viewer.dropped_seconds, 2),
        }

    async def watch(self, tell: Callable[[dict[str, Any]], None]) -> End:
        """Tell the figures every second until the visit is idle or its line is dead."""
        while True:
            await asyncio.sleep(1.0)
            now = asyncio.get_running_loop().time()
            if now - self._line > _LINE_SECONDS:
                return LINE_LOST
            if now - self._spoken > self._idle_seconds:
                return IDLE
            tell(self.figures())

    def end(self, end: End) -> None:
        """Ask the transport to stop and say why."""
        if not self.ended.done():
            self.ended.set_result(end)

    async def gone(self) -> None:
        """Wait a little until the transport has stopped and the place is free."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_GONE_SECONDS):
                await self._gone.wait()

    def close(self, end: End) -> None:
        """Give everything back; the transport calls it once it has stopped."""
        if self._gone.is_set():
            return
        self._gone.set()
        self._place.release()
        self._on_close(self)
        self.end(end)
        self._metrics.ended.add(label=end.reason)
        self._metrics.dropped_seconds.add(self._viewer.dropped_seconds)
        self._viewer.close()
