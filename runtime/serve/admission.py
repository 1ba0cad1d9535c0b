"""How many sessions the machine holds in real time, and who has a place."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np

from ..avatar import Avatar
from ..errors import ServeError

# What is left goes to encoding, the network and everything else on the machine.
_SHARE = 0.8
_MOST = 64
_TIMED_CHUNKS = 3


class KioskFullError(ServeError):
    """Every place is taken."""


def measure_rtf(avatar: Avatar) -> float:
    """Real-time factor of one session: the median of three chunks after one of warm-up, on noise.

    Raises:
        NumericalError, EngineError: the model does not run.
    """
    spec = avatar.spec
    noise = np.random.default_rng(0).normal(0.0, 0.1, spec.chunk_samples).astype(np.float32)
    seconds = []
    with avatar.session() as session:
        for _ in range(1 + _TIMED_CHUNKS):
            session.push(noise)
            started = time.perf_counter()
            for _ in session.chunks():
                pass
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]) / spec.chunk_seconds


def places_for(rtf: float) -> int:
    """Sessions that take at most 80 % of real time together; at least one, at most 64."""
    return max(1, min(_MOST, math.floor(_SHARE / rtf)))


class Admission:
    """Counts the places; used from the event loop alone."""

    def __init__(self, places: int) -> None:
        """Offer `places` places."""
        self.places = places
        self._taken = 0

    @property
    def taken(self) -> int:
        """Places in use."""
        return self._taken

    def take(self) -> Place:
        """Take a place; raises `KioskFullError` with a sentence for the visitor."""
        if self._taken >= self.places:
            count = "one visitor" if self.places == 1 else f"{self.places} visitors"
            raise KioskFullError(f"This machine can animate {count} at a time; try again in a moment.")
        self._taken += 1
        return Place(self)

    def _give_back(self) -> None:
        self._taken -= 1


class Place:
    """One place, held until `release`."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def release(self) -> None:
        """Give the place back; doing it twice is harmless."""
        if self._admission is not None:
            self._admission._give_back()
            self._admission = None
