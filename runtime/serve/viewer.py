"""`Viewer`: one session on an event loop. Samples go in, rendered pieces come out, nothing piles up between them.

Rendering happens in a thread pool that all viewers share, one chunk per job. The pool serves in order, so each
viewer with audio for a chunk gets its turn; one that does not fetch its pieces is not rendered and costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..avatar import Avatar
from ..errors import SessionError
from ..soundtrack import Soundtrack

Samples = NDArray[np.float32]
# A viewer that is further behind than this has lost real time; more would only grow the latency.
_MOST_CHUNKS_BEHIND = 3


@dataclass(frozen=True)
class Piece:
    """A rendered chunk with the sound it was made from.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        sound: float32 [samples, 1] at the viewer's sound rate, as long as the frames.
        pts: presentation time of both, in seconds.
        heard: when the piece's first sample came in, on the event loop's clock.
        render_seconds: time spent rendering, waiting for the pool not included.
        late: rendering took longer than the piece plays.
    """

    frames: NDArray[np.uint8]
    sound: Samples
    pts: float
    heard: float
    render_seconds: float
    late: bool


class Viewer:
    """Everything but `pieces`' rendering runs on the event loop."""

    def __init__(
        self,
        avatar: Avatar,
        pool: ThreadPoolExecutor,
        rate: int,
        sound_rate: int,
        seed: int = 0,
    ) -> None:
        """Open a session.

        Args:
            avatar: the model and the portrait.
            pool: where chunks are rendered.
            rate: of the samples that will be pushed, in Hz.
            sound_rate: of the sound that comes back, in Hz.
            seed: of the noise.

        Raises:
            AudioError: the rate is impossible.
        """
        self._session = avatar.session(seed=seed, sample_rate=rate)
        self._soundtrack = Soundtrack(rate, 1, (sound_rate,))
        self.sound_rate = sound_rate
        self._spec, self._pool, self._rate = avatar.spec, pool, rate
        self._waiting: deque[Samples] = deque()
        self._arrivals: deque[tuple[int, float]] = deque()
        self._pushed = self._rendered = 0
        self._tried = -1
        self._finished = self._closed = self._dropping = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._dropped = 0

    @property
    def behind_seconds(self) -> float:
        """Audio that came in and has not been rendered."""
        return self._pushed / self._rate - self._rendered * self._spec.chunk_seconds

    @property
    def dropped_seconds(self) -> float:
        """Audio that was dropped because the viewer was too far behind."""
        return self._dropped / self._rate

    def push(self, pcm: Samples) -> bool:
        """Add float32 [samples]; False if they were dropped because the viewer is too far behind."""
        if self._closed or self._finished:
            return False
        chunks_behind = self.behind_seconds / self._spec.chunk_seconds
        # One long gap does less harm than many short ones.
        self._dropping = chunks_behind > _MOST_CHUNKS_BEHIND - self._dropping
        if self._dropping:
            self._dropped += pcm.size
            return False
        self._waiting.append(pcm)
        self._pushed += pcm.size
        self._arrivals.append((self._pushed, asyncio.get_running_loop().time()))
        if self.behind_seconds > (_MOST_CHUNKS_BEHIND - 1) * self._spec.chunk_seconds:
            self._room.clear()
        self._changed.set()
        return True

    async def room(self) -> None:
        """Wait until `push` will take samples; for sources that can wait."""
        await self._room.wait()

    def finish(self) -> None:
        """End the audio; `pieces` gives the rest and ends."""
        self._finished = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Render and yield, until `finish` or `close`.

        Raises:
            AudioError: the samples held NaN or Inf.
            NumericalError, EngineError: a chunk could not be rendered.
        """
        loop = asyncio.get_running_loop()
        while not self._closed:
            if not self._worth_trying():
                self._changed.clear()
                await self._changed.wait()
                continue
            self._tried, finished = self._pushed, self._finished
            try:
                piece = await loop.run_in_executor(self._pool, self._render, finished)
            except SessionError:
                # Closed while the chunk was waiting for its turn.
                if self._closed:
                    return
                raise
            if piece is not None:
                self._rendered += 1
                self._tried = -1
                if self.behind_seconds <= (_MOST_CHUNKS_BEHIND - 1) * self._spec.chunk_seconds:
                    self._room.set()
                yield piece
            elif finished:
                return

    def close(self) -> None:
        """End at once; a chunk that is being rendered is not shown."""
        self._closed = True
        self._session.close()
        self._room.set()
        self._changed.set()

    def _worth_trying(self) -> bool:
        enough = self.behind_seconds >= self._spec.chunk_seconds and self._pushed != self._tried
        return enough or self._finished

    def _render(self, finished: bool) -> Piece | None:
        while self._waiting:
            block = self._waiting.popleft()
            self._session.push(block)
            self._soundtrack.push(block[:, None])
        if finished:
            self._session.finish()
            self._soundtrack.finish()
        started = perf_counter()
        chunk = next(self._session.chunks(), None)
        if chunk is None:
            return None
        seconds = perf_counter() - started
        end = chunk.pts + len(chunk.frames) / self._spec.fps
        return Piece(
            frames=chunk.frames,
            sound=self._soundtrack.take_until(end),
            pts=chunk.pts,
            heard=self._arrival(round(chunk.pts * self._rate)),
            render_seconds=seconds,
            late=chunk.late,
        )

    def _arrival(self, sample: int) -> float:
        when = 0.0
        while self._arrivals:
            end, when = self._arrivals[0]
            if end > sample:
                break
            self._arrivals.popleft()
        return when
