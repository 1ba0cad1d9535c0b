"""What a chunk costs here and now, with one session or with several that render at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RapEdgeError
from .session import Session


@dataclass(frozen=True)
class ChunkCost:
    """What was measured.

    Attributes:
        seconds: that a chunk took, the median over all sessions; with several, while the others rendered too.
        frames: by session, its chunks' frames one behind the other, uint8 [T, H, W, 3].
    """

    seconds: float
    frames: tuple[NDArray[np.uint8], ...]


def measure_chunks(sessions: Sequence[Session], rounds: int = 3) -> ChunkCost:
    """Render `rounds` chunks of a tone in every session at the same time, after one that warms the engines up.

    Raises:
        NumericalError, EngineError: a chunk cannot be rendered.
        SessionError: a session is closed.
    """
    runs = [_Run(session, rounds) for session in sessions]
    threads = [threading.Thread(target=run.render, name="rap-edge cost") for run in runs[1:]]
    for thread in threads:
        thread.start()
    runs[0].render()
    for thread in threads:
        thread.join()
    for run in runs:
        if run.error is not None:
            raise run.error
    seconds = sorted(second for run in runs for second in run.seconds[1:])
    return ChunkCost(seconds[len(seconds) // 2], tuple(np.concatenate(run.frames) for run in runs))


class _Run:
    """One session's share of a measurement."""

    def __init__(self, session: Session, rounds: int) -> None:
        self.seconds: list[float] = []
        self.frames: list[NDArray[np.uint8]] = []
        self.error: RapEdgeError | None = None
        self._session, self._rounds = session, rounds

    def render(self) -> None:
        spec = self._session.spec
        tone = np.sin(np.arange(spec.chunk_samples) * (2 * np.pi * 220 / spec.sample_rate)).astype(np.float32)
        try:
            for _ in range(self._rounds + 1):
                self._session.push(0.1 * tone)
                started = time.perf_counter()
                self.frames += [chunk.frames for chunk in self._session.chunks()]
                self.seconds.append(time.perf_counter() - started)
        except RapEdgeError as error:
            self.error = error
