"""`Session`: one viewer's stream, from pushed samples to chunks of frames."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SessionError
from ..inputs.convert import to_float
from ..inputs.resampler import Resampler
from ..loop.interface import Loop
from ..machine.home_process import HomeProcess
from ..spec import ModelSpec
from .chunk import Chunk
from .chunk_renderer import ChunkRenderer
from .overload import Decision, Overload
from .overload_governor import OverloadGovernor, Unhurried
from .sample_buffer import SampleBuffer
from .turns import Turns
from .whole_sound import WholeSound


class Session:
    """One viewer's audio, carried latents and clock.

    `push` may be called from one thread and `chunks` from another. Without an overload policy the frames depend on
    the audio, the seed and the portrait alone, not on how the audio was split or how fast the machine is.
    """

    def __init__(
        self,
        spec: ModelSpec,
        loop: Loop,
        sample_rate: int,
        turns: Turns,
        overload: Overload | None = None,
        clock: Callable[[], float] = time.monotonic,
        whole: WholeSound | None = None,
    ) -> None:
        """Made by `Avatar.session`; `sample_rate` is that of the pushed audio in Hz, which is encoded as a `whole`."""
        self._spec, self._turns, self._clock = spec, turns, clock
        self._governor = Unhurried(spec) if overload is None else OverloadGovernor(overload, spec)
        self._renderer: ChunkRenderer | None = ChunkRenderer(spec, loop, self._governor, clock, whole)
        self._notes, self._whole = loop.notes, whole
        self._resampler = Resampler(sample_rate, spec.sample_rate)
        self._buffer = SampleBuffer(spec.window_samples)
        self._arrivals: deque[float] = deque()
        self._rendered = self._arrived = 0
        self._finished = False
        self._closed = False
        self._home = HomeProcess()
        self._rendering = threading.Lock()
        self._changed = threading.Condition()

    @property
    def spec(self) -> ModelSpec:
        """The model, with the steps and the latency that the avatar was opened with."""
        return self._spec

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should say about how the chunks have been rendered."""
        renderer = self._renderer
        return self._notes if renderer is None else renderer.notes

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What the overload controller decided, the oldest first; () without an overload policy."""
        return self._governor.decisions

    def push(self, pcm: NDArray[Any]) -> None:
        """Add any number of mono samples.

        Args:
            pcm: [samples] float32 in -1..1, or int16, at the session's sample rate.

        Raises:
            AudioError: another dtype or shape, NaN or Inf among the samples, or more than can be encoded at once.
            SessionError: after `finish` or `close`, or in a forked child.
        """
        self._home.require()
        with self._changed:
            self._require_open()
            if self._finished:
                raise SessionError("The session's audio has been finished; open a new session to push more.")
            self._append(self._resampler.push(to_float(pcm)))

    def finish(self) -> None:
        """End the audio: what is left becomes ready, and the last chunk ends where the audio ends."""
        self._home.require()
        with self._changed:
            self._require_open()
            if not self._finished:
                self._append(self._resampler.flush())
                self._finished = True
                while self._buffer.end > self._arrived * self._spec.chunk_samples:
                    self._arrive()
                self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a chunk is ready; False if none will come, or none came within `timeout` seconds."""
        self._home.require()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._finished or self._ready(), timeout)
            return not self._closed and self._ready()

    def chunks(self) -> Iterator[Chunk]:
        """Render and yield every chunk that is ready, in the caller's thread.

        Sessions of one avatar take turns, chunk by chunk, in the order in which they ask, as many at a time as the
        avatar was opened for. Under an overload policy
        a chunk may be dropped or may fail; it is yielded nevertheless, marked and without frames.

        Raises:
            NumericalError: a stage gave NaN or Inf; the chunk is not yielded and the session is closed. Under an
                overload policy only after as many failures in a row as the policy allows.
            EngineError: an engine failed; likewise.
            SessionError: after `close`, or in a forked child.
        """
        while True:
            self._home.require()
            self._require_open()
            with self._rendering:
                if not self._ready():
                    return
                asked = self._clock()
                with self._turns.turn(self):
                    # Closed while it waited: `close` is waiting for this thread now.
                    self._require_open()
                    chunk = self._next(asked)
            yield chunk

    def close(self) -> None:
        """End the session: wait for the chunk that is being rendered, if any, and free the buffers; may be repeated.

        In a child that was forked later it does nothing.
        """
        if not self._home.is_here:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._rendering:
            self._let_go()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, samples: NDArray[np.float32]) -> None:
        self._buffer.append(samples)
        if self._whole is not None:
            # Nothing is ready before all of it is there.
            self._whole.require(self._buffer.end)
            return
        while self._buffer.end >= self._spec.window_of(self._arrived)[1]:
            self._arrive()

    def _arrive(self) -> None:
        now = self._clock()
        self._arrivals.append(now)
        self._governor.ready(now)
        self._arrived += 1
        self._changed.notify_all()

    def _ready(self) -> bool:
        return self._arrived > self._rendered

    def _next(self, asked: float) -> Chunk:
        renderer, index = self._renderer, self._rendered
        if renderer is None:
            raise SessionError("The session is closed; open a new one with Avatar.session().")
        try:
            chunk = renderer.render(index, self._buffer, self._arrivals[0], asked)
        except BaseException:
            # Also where it was stopped in the middle: nobody knows what the engines' buffers hold.
            self._shut()
            raise
        self._rendered += 1
        self._arrivals.popleft()
        self._buffer.drop_before((index + 1) * self._spec.chunk_samples)
        return chunk

    def _shut(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._let_go()

    def _let_go(self) -> None:
        self._turns.leave(self)
        if self._renderer is not None:
            self._notes, self._renderer = self._renderer.notes, None

    def _require_open(self) -> None:
        if self._closed:
            raise SessionError("The session is closed; open a new one with Avatar.session().")
