"""How many sessions the machine holds in real time, and who has a place."""

from __future__ import annotations

import math

from ..errors import ServeError

# What is left goes to encoding, the network and everything else on the machine.
_SHARE = 0.8
MOST_PLACES = 64


class KioskFullError(ServeError):
    """Every place is taken."""


def places_for(rtf: float) -> int:
    """Sessions that take at most 80 % of real time together; at least one, at most 64."""
    return max(1, min(MOST_PLACES, math.floor(_SHARE / rtf)))


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
