"""`AvatarStream`: a face for a voice that comes in pieces, at any pace, and can be interrupted.

One thread renders; whoever iterates gets one frame per frame time, whatever happens: idle motion while nothing is said,
the last picture where the machine is too slow. See `stream_core` for the rules.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from ..inputs.convert import to_float
from ..loop.interface import Loop
from ..machine.home_process import HomeProcess
from ..spec import ModelSpec
from .idle_reel import IdleReel
from .overload import Decision, Overload
from .stream_core import Rendering, StreamCore, StreamFrame
from .stream_worker import StreamWorker
from .turns import Turns

# A consumer that is further behind has paused; catching up would show the pause's frames in a burst.
_MOST_BEHIND_SECONDS = 1.0


class AvatarStream:
    """One viewer's stream: push sound, iterate over frames.

    `push`, `end_utterance`, `interrupt` and `close` return at once and may be called from any thread; one thread or
    one task iterates. Frames are paced by the clock, 1/fps apart.

    Attributes:
        sample_rate: of the frames' sound, in Hz.
        fps: frames per second.
        image_size: height and width of the pictures.
    """

    def __init__(
        self, spec: ModelSpec, loop: Loop, reel: IdleReel, sample_rate: int, turns: Turns, policy: Overload
    ) -> None:
        """Made by `Avatar.stream`; `sample_rate` is that of the frames' sound, in Hz."""
        self.sample_rate, self.fps, self.image_size = sample_rate, spec.fps, spec.image_size
        self._worker = StreamWorker(StreamCore(spec, sample_rate, reel, policy), loop, turns)
        # A stream that nobody closes ends when nobody has it any more.
        weakref.finalize(self, self._worker.stop)
        self._started: float | None = None
        self._home = HomeProcess()

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided because chunks were late, the oldest first."""
        with self._worker.changed:
            return tuple(self._worker.decisions)

    @property
    def quiet(self) -> bool:
        """Whether every utterance is over, and the face idles or is about to."""
        with self._worker.changed:
            return self._worker.core.quiet

    @property
    def unplayed_seconds(self) -> float:
        """Sound that has been pushed and not been shown; resamplers hold a few milliseconds beside it."""
        with self._worker.changed:
            return self._worker.core.unplayed_seconds

    def take_renderings(self) -> tuple[Rendering, ...]:
        """What became of the chunks of speech since the last call, the oldest first, the last thousand at most."""
        with self._worker.changed:
            return self._worker.core.take_renderings()

    def push(self, pcm: NDArray[Any], sample_rate: int | None = None) -> int:
        """Add to what is to be said, any number of mono samples, as fast as they come.

        Args:
            pcm: [samples] float32 in -1..1, or int16.
            sample_rate: of these samples in Hz; None means the stream's.

        Returns:
            The number of the utterance that they belong to.

        Raises:
            AudioError: another dtype or shape, NaN or Inf among the samples, or an impossible rate.
            SessionError: after `close`, or in a forked child.
        """
        self._home.require()
        samples = to_float(pcm)
        with self._worker.open() as core:
            if samples.size:
                core.push(samples, self.sample_rate if sample_rate is None else sample_rate)
            return core.utterance

    def end_utterance(self) -> int:
        """End what is being said: all that was pushed is shown now, and the stream goes on.

        Returns:
            The number of the utterance that has ended.

        Raises:
            SessionError: after `close`, or in a forked child.
        """
        self._home.require()
        with self._worker.open() as core:
            number = core.utterance
            core.end_utterance()
            return number

    def interrupt(self) -> float:
        """Drop everything that has not been shown; with the next frame the face idles.

        Returns:
            Milliseconds of the current utterance that have been played; 0.0 if there was none.

        Raises:
            SessionError: after `close`, or in a forked child.
        """
        self._home.require()
        with self._worker.open() as core:
            return core.interrupt()

    def close(self) -> None:
        """End the stream and its iteration at once, also while a chunk is being rendered; may be repeated."""
        if self._home.is_here:
            self._worker.stop()

    def __iter__(self) -> Iterator[StreamFrame]:
        """Frames, each given when it is due, until `close`.

        Raises:
            NumericalError, EngineError: chunk after chunk could not be rendered; the stream is closed.
            SessionError: in a forked child.
        """
        self._home.require()
        while True:
            with self._worker.changed:
                while not self._worker.closed and (early := self._early()) > 0.0:
                    self._worker.changed.wait(early)
                frame = self._next()
            if frame is None:
                return
            yield frame

    async def __aiter__(self) -> AsyncIterator[StreamFrame]:
        """The same in asyncio; waiting does not hold up the event loop.

        Raises:
            NumericalError, EngineError: chunk after chunk could not be rendered; the stream is closed.
            SessionError: in a forked child.
        """
        self._home.require()
        while True:
            with self._worker.changed:
                early = 0.0 if self._worker.closed else self._early()
                frame = None if early > 0.0 else self._next()
            if early > 0.0:
                await asyncio.sleep(early)
            elif frame is None:
                return
            else:
                yield frame

    def __enter__(self) -> AvatarStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _early(self) -> float:
        """Seconds until the next frame is due."""
        now, given = time.monotonic(), self._worker.core.frames / self.fps
        if self._started is None or now - self._started - given > _MOST_BEHIND_SECONDS:
            self._started = now - given
        return self._started + given - now

    def _next(self) -> StreamFrame | None:
        worker = self._worker
        if worker.closed:
            failure, worker.failure = worker.failure, None
            if failure is not None:
                raise failure
            return None
        frame = worker.core.next_frame()
        worker.changed.notify_all()
        return frame
