"""How many sessions the machine holds in real time, what a visitor asks for, and who has a place."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from ..errors import ServeError

# What is left goes to encoding, the network and everything else on the machine.
_SHARE = 0.8
MOST_PLACES = 64


class KioskFullError(ServeError):
    """Every place is taken."""


class KioskClosingError(ServeError):
    """The kiosk takes nobody any more."""


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for: a portrait's id or None for the first one, the noise's seed, and what lets them in."""

    portrait: str | None = None
    seed: int = 0
    ticket: str | None = None


def places_for(rtf: float) -> int:
    """Sessions that take at most 80 % of real time together; at least one, at most 64."""
    return max(1, min(MOST_PLACES, math.floor(_SHARE / rtf)))


class Admission:
    """Counts the places; used from the event loop alone.

    Attributes:
        places: how many there are.
        tickets: ids of the tickets of those who have one.
    """

    def __init__(self, places: int) -> None:
        """Offer `places` places."""
        self.places = places
        self.tickets: set[str] = set()
        self._taken = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def taken(self) -> int:
        """Places in use."""
        return self._taken

    def take(self, ticket: str | None = None) -> Place:
        """Take a place, by a ticket's id if any; raises `KioskFullError` with a sentence for the visitor."""
        if self._taken >= self.places:
            count = "one visitor" if self.places == 1 else f"{self.places} visitors"
            raise KioskFullError(f"This machine can animate {count} at a time; try again in a moment.")
        self._taken += 1
        self._empty.clear()
        if ticket is not None:
            self.tickets.add(ticket)
        return Place(self, ticket)

    async def emptied(self) -> None:
        """Wait until no place is in use."""
        await self._empty.wait()

    def _give_back(self, ticket: str | None) -> None:
        self._taken -= 1
        if ticket is not None:
            self.tickets.discard(ticket)
        if not self._taken:
            self._empty.set()


class Place:
    """One place, held until `release`."""

    def __init__(self, admission: Admission, ticket: str | None) -> None:
        self._admission: Admission | None = admission
        self._ticket = ticket

    def release(self) -> None:
        """Give the place back; doing it twice is harmless."""
        if self._admission is not None:
            self._admission._give_back(self._ticket)
            self._admission = None
