"""The whole chunk loop on two sets of engines, chunk by chunk in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rap_edge.export.parity.check_inputs import RealInputs, to_int16
from rap_edge.export.parity.compare import roll_out
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.spec import ModelSpec

from ..record.clips import Talk
from .quality import Bytes


@dataclass(frozen=True)
class Race:
    """Times of one chunk, base against calibrated.

    Attributes:
        base_cpu, cpu: least CPU seconds on one thread; other work on the machine hardly changes them.
        base_wall, wall: median seconds on all threads.
        threads: of the wall clock times.
        chunks: that were rendered by each, for each of the two.
    """

    base_cpu: float
    cpu: float
    base_wall: float
    wall: float
    threads: int
    chunks: int

    @property
    def cpu_ratio(self) -> float:
        """How many times less CPU time the calibrated graphs take."""
        return self.base_cpu / self.cpu

    def to_dict(self) -> dict[str, Any]:
        """The manifest's entry."""
        return asdict(self) | {"cpu_ratio": self.cpu_ratio, "wall_ratio": self.base_wall / self.wall}


def race(
    spec: ModelSpec,
    engines: Callable[[int], tuple[Mapping[str, Engine], Mapping[str, Engine]]],
    talk: Talk,
    chunks: int,
    threads: int,
    advance: Callable[[], None],
) -> Race:
    """Render `chunks` chunks on both, first on one thread, then on `threads`.

    Args:
        spec: the model.
        engines: gives the base's and the calibrated engines for a number of threads.
        talk: the clip.
        chunks: of each.
        threads: of the second part.
        advance: is called after every pair of chunks.
    """
    single = side_by_side(spec, engines(1), talk, chunks, time.thread_time, lambda frames: advance())
    several = side_by_side(spec, engines(threads), talk, chunks, time.perf_counter, lambda frames: advance())
    return Race(
        min(single[0]), min(single[1]), statistics.median(several[0]), statistics.median(several[1]), threads, chunks
    )


def side_by_side(
    spec: ModelSpec,
    pair: tuple[Mapping[str, Engine], Mapping[str, Engine]],
    talk: Talk,
    chunks: int,
    clock: Callable[[], float],
    rendered: Callable[[Bytes], None],
) -> tuple[list[float], list[float]]:
    """Render the clip on two sets of engines, a chunk of each in turn.

    Args:
        spec: the model.
        pair: base and calibrated engines.
        talk: the clip.
        chunks: of each.
        clock: seconds.
        rendered: is given every chunk of the calibrated engines.

    Returns:
        Seconds of every chunk of both; the first one, which encodes the portrait too, is left out if there are more.
    """
    inputs = RealInputs(talk.portrait, to_int16(talk.waveform), talk.origin)
    loops = [roll_out(spec, engines, inputs, chunks) for engines in pair]
    laps: tuple[list[float], list[float]] = ([], [])
    for _ in range(chunks):
        for loop, taken in zip(loops, laps, strict=True):
            started = clock()
            frames = next(loop)
            taken.append(clock() - started)
        rendered(frames)
    return (laps[0][1:], laps[1][1:]) if chunks > 1 else laps
