"""Which box takes the next visitor, so that no box is promised more visitors than it has places.

In: boxes that come, drain and go (`join`, `drain`, `lost`), what they say of themselves (`heard`), visitors who come
and tickets that nobody will use (`reserve`, `release`). Out: a `Reservation`, whose ticket the caller signs and hands
out, or a `FullHouseError` that says when to come again. Nothing here reads a clock, waits or draws: every time is an
argument, in seconds on one clock that never goes back, so that a simulation is as good as the real thing.

A place counts as taken from its reservation on, until a status that was asked for later shows that its visitor has left
or that the ticket has expired unused. A box that has not been heard of for `fresh` seconds is offered to nobody, and
remembered, since its tickets are still good there. Tickets that an earlier `Placement` handed out are unknown to the
next one until their visitors are there; who comes with one too many is for the box to send back.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Set
from dataclasses import dataclass, field

from rap_edge.runtime.errors import FleetError

from .turned_away import TurnedAway


class FullHouseError(FleetError):
    """Every place of every box is taken; `retry_after` is the seconds after which to come again."""

    def __init__(self, retry_after: float) -> None:
        """Say so, with the time."""
        super().__init__(f"Every place is taken; come again in {retry_after:.0f} s.")
        self.retry_after = retry_after


@dataclass(frozen=True)
class BoxStatus:
    """What a box says of itself.

    Attributes:
        places: visitors that it holds in real time.
        held: the tickets of the visitors who are there; without a ticket nobody is.
        draining: whether it takes nobody any more.
    """

    places: int
    held: Set[str]
    draining: bool = False


@dataclass(frozen=True)
class Reservation:
    """A place, until the ticket expires or its visitor leaves.

    Attributes:
        box: where.
        ticket: the caller's name for it.
        expires: when the ticket is good no more.
    """

    box: str
    ticket: str
    expires: float


@dataclass(frozen=True)
class Load:
    """The fleet in figures, without boxes that drain or are not heard of.

    Attributes:
        boxes: that take visitors.
        places: of theirs.
        taken: of these, with visitors or reserved.
    """

    boxes: int
    places: int
    taken: int


@dataclass
class _Box:
    """What is known of a box.

    Attributes:
        asked: when its last status was asked for.
        seen: tickets whose visitors were there then.
        open: when tickets expire that nobody has been seen with.
        retired: whether it was told to drain from here.
    """

    name: str
    asked: float = -math.inf
    places: int = 0
    draining: bool = False
    retired: bool = False
    seen: set[str] = field(default_factory=set)
    open: dict[str, float] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        return len(self.seen) + len(self.open)

    @property
    def free(self) -> int:
        return 0 if self.draining or self.retired else max(0, self.places - self.taken)


class Placement:
    """All boxes and their places; a reservation costs the same with ten boxes as with ten thousand.

    The box with the most free places is taken, so that visitors share a machine with as few others as there can be, and
    few lose theirs with it; of equals the one that has been waiting longest.
    """

    def __init__(self, *, lifetime: float = 30.0, slack: float = 2.0, fresh: float = 5.0) -> None:
        """Know of no box.

        Args:
            lifetime: seconds for which a ticket is good.
            slack: seconds by which a box's clock may be behind this one when it lets a ticket in.
            fresh: seconds for which a box is trusted to be as it said last.
        """
        self._lifetime, self._slack, self._fresh = lifetime, slack, fresh
        self._boxes: dict[str, _Box] = {}
        self._homes: dict[str, _Box] = {}
        # Boxes by their number of free places, and a bit for every number that some box has: the highest is the most.
        self._offered: dict[int, OrderedDict[str, _Box]] = {}
        self._numbers = 0
        self._turned_away = TurnedAway()

    def join(self, box: str) -> None:
        """Know a box from now on, by a name that none has had; it is offered once it has been heard of."""
        self._boxes[box] = _Box(box)

    def heard(self, box: str, status: BoxStatus, asked: float) -> None:
        """Take what a box says; of one that is not known, as of one that is lost, nothing is taken.

        Args:
            box: its name.
            status: what it said.
            asked: when it was asked, not when the answer came; an answer to an earlier question than the last is
                left out.
        """
        known = self._boxes.get(box)
        if known is None or asked < known.asked:
            return
        self._withdraw(known)
        known.asked, known.places, known.draining = asked, status.places, status.draining
        gone = known.seen - status.held
        gone |= {ticket for ticket, expires in known.open.items() if expires + self._slack <= asked} - status.held
        for ticket in gone:
            self._forget(known, ticket)
            self._turned_away.departed(asked)
        for ticket in status.held:
            known.open.pop(ticket, None)
            known.seen.add(ticket)
            self._homes[ticket] = known
        self._offer(known)

    def reserve(self, ticket: str, at: float) -> Reservation:
        """Reserve a place.

        Args:
            ticket: a name that no other has.
            at: now.

        Raises:
            FullHouseError: no box has one.
            ValueError: the name is taken.
        """
        if ticket in self._homes:
            raise ValueError(f"the ticket {ticket!r} has been handed out before")
        while self._numbers:
            box = next(iter(self._offered[self._numbers.bit_length() - 1].values()))
            self._withdraw(box)
            if at - box.asked > self._fresh:
                # It is offered again when it is heard of again.
                continue
            box.open[ticket] = expires = at + self._lifetime
            self._homes[ticket] = box
            self._offer(box)
            return Reservation(box.name, ticket, expires)
        raise FullHouseError(self._turned_away.wait(at))

    def release(self, ticket: str, at: float) -> None:
        """Give a place back at once, where the ticket never left the house or its visitor is known to have gone."""
        if (box := self._homes.get(ticket)) is not None:
            self._withdraw(box)
            self._forget(box, ticket)
            self._turned_away.departed(at)
            self._offer(box)

    def drain(self, box: str) -> None:
        """Offer a box to nobody from now on; who has a ticket or is there may stay."""
        if (known := self._boxes.get(box)) is not None:
            self._withdraw(known)
            known.retired = True

    def lost(self, box: str) -> frozenset[str]:
        """Forget a box that is certainly gone; returns the tickets of all who will have to come again."""
        if (known := self._boxes.pop(box, None)) is None:
            return frozenset()
        self._withdraw(known)
        tickets = frozenset(known.seen | known.open.keys())
        for ticket in tickets:
            self._forget(known, ticket)
        return tickets

    def taken(self, box: str) -> int:
        """Visitors of a box and reservations there; 0 for one that is not known."""
        known = self._boxes.get(box)
        return 0 if known is None else known.taken

    def load(self, at: float) -> Load:
        """The fleet in figures; the one question whose cost grows with the fleet."""
        boxes = [
            box for box in self._boxes.values() if not (box.draining or box.retired) and at - box.asked <= self._fresh
        ]
        return Load(len(boxes), sum(box.places for box in boxes), sum(box.taken for box in boxes))

    def _forget(self, box: _Box, ticket: str) -> None:
        box.seen.discard(ticket)
        box.open.pop(ticket, None)
        if self._homes.get(ticket) is box:
            del self._homes[ticket]

    def _offer(self, box: _Box) -> None:
        """Let a box be chosen, by its number of free places, if it has any."""
        if free := box.free:
            self._offered.setdefault(free, OrderedDict())[box.name] = box
            self._numbers |= 1 << free

    def _withdraw(self, box: _Box) -> None:
        """Let a box not be chosen; before anything that changes its number of free places."""
        free = box.free
        same = self._offered.get(free)
        if same is not None and same.pop(box.name, None) is not None and not same:
            self._numbers &= ~(1 << free)
