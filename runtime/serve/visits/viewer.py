"""`Viewer`: one session on an event loop. Samples go in, rendered pieces come out, nothing piles up between them.

Rendering happens in threads that all viewers share, one chunk per job. They serve in order, so each viewer with audio
for a chunk gets its turn; one that does not fetch its pieces is not rendered and costs nothing. What a machine that
is too slow leaves out is the session's overload policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ...avatar import Avatar
from ...inputs.soundtrack import Soundtrack
from ...session.chunk import Chunk, Mark
from ...session.overload import Overload

Samples = NDArray[np.float32]
# A viewer that is further behind than this has lost real time; more would only grow the latency.
_MOST_CHUNKS_BEHIND = 3


@dataclass(frozen=True)
class Piece:
    """A rendered chunk with the sound it was made from.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB, one per frame time; the last good one where nothing could be rendered.
        sound: float32 [samples, 1] at the viewer's sound rate, as long as the frames.
        pts: presentation time of both, in seconds.
        heard: when the piece's first sample came in, on the event loop's clock.
        render_seconds: time spent rendering, waiting for the thread not included.
        late: rendered later than it had to be.
        mark: how good the frames are.
    """

    frames: NDArray[np.uint8]
    sound: Samples
    pts: float
    heard: float
    render_seconds: float
    late: bool
    mark: Mark


class Viewer:
    """Everything but `pieces`' rendering runs on the event loop."""

    def __init__(self, avatar: Avatar, pool: ThreadPoolExecutor, rate: int, sound_rate: int, seed: int = 0) -> None:
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
        self._session = avatar.session(seed=seed, sample_rate=rate, overload=Overload())
        self._soundtrack = Soundtrack(rate, 1, sound_rate, 1)
        self.sound_rate = sound_rate
        self._spec, self._pool, self._rate = avatar.spec, pool, rate
        self._held = avatar.portrait
        self._pushed = self._rendered = self._dropped = 0
        self._finished = self._closed = self._dropping = False
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()

    @property
    def behind_seconds(self) -> float:
        """Audio that came in and has not been rendered."""
        return self._pushed / self._rate - self._rendered * self._spec.chunk_seconds

    @property
    def dropped_seconds(self) -> float:
        """Audio that was dropped because the viewer was too far behind."""
        return self._dropped / self._rate

    def push(self, pcm: Samples) -> bool:
        """Add float32 [samples]; False if they were dropped because the viewer is too far behind.

        Raises:
            AudioError: NaN or Inf among the samples.
        """
        if self._closed or self._finished:
            return False
        chunks_behind = self.behind_seconds / self._spec.chunk_seconds
        # One long gap does less harm than many short ones.
        self._dropping = chunks_behind > _MOST_CHUNKS_BEHIND - self._dropping
        if self._dropping:
            self._dropped += pcm.size
            return False
        self._session.push(pcm)
        self._soundtrack.push(pcm[:, None])
        self._pushed += pcm.size
        if self.behind_seconds > (_MOST_CHUNKS_BEHIND - 1) * self._spec.chunk_seconds:
            self._room.clear()
        self._changed.set()
        return True

    async def room(self) -> None:
        """Wait until `push` will take samples; for sources that can wait."""
        await self._room.wait()

    def finish(self) -> None:
        """End the audio; `pieces` gives the rest and ends."""
        if not self._closed and not self._finished:
            self._session.finish()
            self._soundtrack.finish()
        self._finished = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Render and yield, until `finish` or `close`.

        Raises:
            NumericalError, EngineError: chunk after chunk could not be rendered.
        """
        loop = asyncio.get_running_loop()
        while not self._closed:
            if not self._session.wait(0):
                if self._finished:
                    return
                self._changed.clear()
                await self._changed.wait()
                continue
            rendered = await loop.run_in_executor(self._pool, self._render)
            if rendered is None:
                return
            self._rendered += 1
            if self.behind_seconds <= (_MOST_CHUNKS_BEHIND - 1) * self._spec.chunk_seconds:
                self._room.set()
            yield self._piece(*rendered)

    def close(self) -> None:
        """End at once; a chunk that is being rendered is not shown."""
        if self._closed:
            return
        self._closed = True
        self._room.set()
        self._changed.set()
        # Closing waits for the chunk in flight, which the event loop must not; a pool that is shut down has none.
        with suppress(RuntimeError):
            self._pool.submit(self._session.close)

    def _render(self) -> tuple[Chunk, float] | None:
        if self._closed:
            return None
        started = perf_counter()
        chunk = next(self._session.chunks(), None)
        return None if chunk is None else (chunk, perf_counter() - started)

    def _piece(self, chunk: Chunk, seconds: float) -> Piece:
        frames = chunk.at_full_rate(self._spec.fps, self._held)
        self._held = frames[-1]
        return Piece(
            frames=frames,
            sound=self._soundtrack.take_until(chunk.pts + chunk.duration),
            pts=chunk.pts,
            heard=chunk.captured - chunk.duration,
            render_seconds=seconds,
            late=chunk.late,
            mark=chunk.mark,
        )
