"""`AvatarStream`: a face for a voice that comes in pieces, at any pace, and can be interrupted.

One thread renders; whoever iterates gets one frame per frame time, whatever happens: idle motion while nothing is said,
the last picture where the machine is too slow. See `stream_core` for the rules.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from ..errors import EngineError, NumericalError, SessionError
from ..inputs.convert import to_float
from ..loop.interface import Loop
from ..machine.home_process import HomeProcess
from ..spec import ModelSpec
from .idle_reel import IdleReel
from .overload import Decision, Overload
from .stream_core import Job, StreamCore, StreamFrame
from .turns import Turns

# A consumer that is further behind has paused; catching up would show the pause's frames in a burst.
_MOST_BEHIND_SECONDS = 1.0
_DECISIONS_KEPT = 10_000


class AvatarStream:
    """One viewer's stream: push sound, iterate over frames.

    `push`, `end_utterance`, `interrupt` and `close` return at once and may be called from any thread; one thread or
    one task iterates. Frames are paced by the clock, 1/fps apart.
    """

    def __init__(
        self, spec: ModelSpec, loop: Loop, reel: IdleReel, sample_rate: int, turns: Turns, policy: Overload
    ) -> None:
        """Made by `Avatar.stream`; `sample_rate` is that of the frames' sound, in Hz."""
        self.sample_rate, self.fps = sample_rate, spec.fps
        self._core = StreamCore(spec, sample_rate, reel, policy)
        self._loop, self._turns = loop, turns
        self._started: float | None = None
        self._failure: NumericalError | EngineError | None = None
        self._closed = False
        self._decisions: deque[Decision] = deque(maxlen=_DECISIONS_KEPT)
        self._home = HomeProcess()
        self._changed = threading.Condition()
        threading.Thread(target=self._render, name="rap-edge stream", daemon=True).start()

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided because chunks were late, the oldest first."""
        with self._changed:
            return tuple(self._decisions)

    def push(self, pcm: NDArray[Any], sample_rate: int | None = None) -> None:
        """Add to what is to be said, any number of mono samples, as fast as they come.

        Args:
            pcm: [samples] float32 in -1..1, or int16.
            sample_rate: of these samples in Hz; None means the stream's.

        Raises:
            AudioError: another dtype or shape, NaN or Inf among the samples, or an impossible rate.
            SessionError: after `close`, or in a forked child.
        """
        samples = to_float(pcm)
        with self._open():
            if samples.size:
                self._core.push(samples, self.sample_rate if sample_rate is None else sample_rate)

    def end_utterance(self) -> None:
        """End what is being said: all that was pushed is shown now, and the stream goes on.

        Raises:
            SessionError: after `close`, or in a forked child.
        """
        with self._open():
            self._core.end_utterance()

    def interrupt(self) -> float:
        """Drop everything that has not been shown; with the next frame the face idles.

        Returns:
            Milliseconds of the current utterance that have been played; 0.0 if there was none.

        Raises:
            SessionError: after `close`, or in a forked child.
        """
        with self._open():
            return self._core.interrupt()

    def close(self) -> None:
        """End the stream and its iteration at once, also while a chunk is being rendered; may be repeated."""
        if not self._home.is_here:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[StreamFrame]:
        """Frames, each given when it is due, until `close`.

        Raises:
            NumericalError, EngineError: chunk after chunk could not be rendered; the stream is closed.
            SessionError: in a forked child.
        """
        self._home.require()
        while True:
            with self._changed:
                while not self._closed and (early := self._early()) > 0.0:
                    self._changed.wait(early)
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
            with self._changed:
                early = 0.0 if self._closed else self._early()
            if early > 0.0:
                # In steps, so that `close` ends an iteration that waits.
                await asyncio.sleep(early)
                continue
            with self._changed:
                frame = self._next()
            if frame is None:
                return
            yield frame

    def __enter__(self) -> AvatarStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _early(self) -> float:
        """Seconds until the next frame is due."""
        now, given = time.monotonic(), self._core.frames / self.fps
        if self._started is None or now - self._started - given > _MOST_BEHIND_SECONDS:
            self._started = now - given
        return self._started + given - now

    def _next(self) -> StreamFrame | None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._closed:
            return None
        frame = self._core.next_frame()
        self._changed.notify_all()
        return frame

    @contextmanager
    def _open(self) -> Iterator[None]:
        """The stream's lock, while it is open; whoever waits looks again behind the block."""
        self._home.require()
        with self._changed:
            if self._closed:
                raise SessionError("The stream is closed; open a new one with Avatar.stream().")
            yield
            self._changed.notify_all()

    def _render(self) -> None:
        """The rendering thread: one job after the other, each in its turn among all sessions of the avatar."""
        while True:
            with self._changed:
                job = None
                while not self._closed and (job := self._core.next_job()) is None:
                    self._changed.wait()
                if job is None:
                    return
            if not self._do(job):
                return

    def _do(self, job: Job) -> bool:
        """Render one job; returns whether there may be more."""
        with self._turns.turn():
            with self._changed:
                if self._closed or self._core.unwanted(job):
                    self._core.withdraw(job)
                    return not self._closed
            started = time.monotonic()
            try:
                self._loop.restore(job.state)
                self._loop.waveform[...] = job.waveform
                frames, _ = self._loop.render(job.rung.steps, job.rung.frame_step)
            except (NumericalError, EngineError) as error:
                return self._forgiven(job, error)
            except BaseException:
                self.close()
                raise
            seconds, after = time.monotonic() - started, self._loop.state
        with self._changed:
            decision = self._core.rendered(job, frames, after, seconds)
            if decision is not None:
                self._decisions.append(decision)
            self._changed.notify_all()
        return True

    def _forgiven(self, job: Job, error: NumericalError | EngineError) -> bool:
        with self._changed:
            if self._core.failed(job):
                return True
            self._failure, self._closed = error, True
            self._changed.notify_all()
            return False
