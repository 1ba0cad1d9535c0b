"""The thread that renders a stream's chunks, and what it shares with whoever shows them."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import EngineError, NumericalError, SessionError
from ..loop.interface import Loop
from .overload import Decision
from .stream_core import Job, StreamCore
from .turns import Turns

_DECISIONS_KEPT = 10_000
_LAST_SECONDS = 30.0


class StreamWorker:
    """Renders one job of a stream after the other, each in its turn among all sessions of the avatar.

    Attributes:
        core: the stream's rules; used under `changed` alone.
        changed: notified whenever there may be something to render or to show.
        closed: nothing is rendered or shown any more.
        failure: why it was closed, until it has been raised.
        decisions: what was decided because chunks were late.
    """

    def __init__(self, core: StreamCore, loop: Loop, turns: Turns) -> None:
        """Begin at once, in a thread that ends with `stop` and does not outlive the program."""
        self.core, self._loop, self._turns = core, loop, turns
        self.changed = threading.Condition()
        self.closed = False
        self.failure: NumericalError | EngineError | None = None
        self.decisions: deque[Decision] = deque(maxlen=_DECISIONS_KEPT)
        self._thread = threading.Thread(target=self._run, name="rap-edge stream", daemon=True)
        # An engine that runs while the interpreter goes away aborts the program.
        atexit.register(self._end)
        self._thread.start()

    @contextmanager
    def open(self) -> Iterator[StreamCore]:
        """The rules, to be changed; raises `SessionError` after `stop`."""
        with self.changed:
            if self.closed:
                raise SessionError("The stream is closed; open a new one with Avatar.stream().")
            yield self.core
            self.changed.notify_all()

    def stop(self) -> None:
        """End at once; a chunk that is being rendered is not waited for."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _end(self) -> None:
        self.stop()
        self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None and self._do(job):
                pass
        finally:
            self.stop()
            atexit.unregister(self._end)
            self._turns.leave(self)

    def _next(self) -> Job | None:
        with self.changed:
            while not self.closed:
                job = self.core.next_job()
                if job is not None:
                    return job
                self.changed.wait()
            return None

    def _do(self, job: Job) -> bool:
        """Render one job; returns whether there may be more."""
        with self._turns.turn(self):
            with self.changed:
                if self.closed or self.core.unwanted(job):
                    self.core.withdraw(job)
                    return not self.closed
            started = time.monotonic()
            try:
                self._loop.restore(job.state)
                self._loop.waveform[...] = job.waveform
                frames, _ = self._loop.render(job.rung.steps, job.rung.frame_step)
            except (NumericalError, EngineError) as error:
                return self._forgiven(job, error)
            seconds, after = time.monotonic() - started, self._loop.state
        with self.changed:
            decision = self.core.rendered(job, frames, after, seconds)
            if decision is not None:
                self.decisions.append(decision)
            self.changed.notify_all()
        return True

    def _forgiven(self, job: Job, error: NumericalError | EngineError) -> bool:
        with self.changed:
            if self.core.failed(job):
                return True
            self.failure = error
            return False
