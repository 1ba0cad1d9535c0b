"""Tickets: signed promises of a place at one box, with which a dispatcher hands out places without asking the box.

In: a `Ticket` and the key that dispatcher and box share. Out: a text for the visitor, and at the box the ticket again,
once, or a `TicketError`. The text is base64url of JSON, a dot, and base64url of its HMAC-SHA256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

from ..checks.bounds import Text, Whole
from ..checks.fields import FieldError, record_from
from ..errors import ServeError

LONGEST_TICKET = 1024
LEAST_KEY = 32
# The visitor's own picture, which they send with the ticket before they use it.
OWN_PORTRAIT = "own"
# A box remembers a ticket that was used until it expires.
LONGEST_SECONDS = 3600
_ALTERED = "The ticket is not one of this fleet's, or was altered; ask the dispatcher for another one."


class TicketError(ServeError):
    """A ticket does not open this place now; the dispatcher gives another one."""


@dataclass(frozen=True)
class Ticket:
    """A place for one visitor.

    Attributes:
        id: what makes it single.
        box: `Tickets.box` of the process that has the place.
        portrait: the portrait's id, or `OWN_PORTRAIT`.
        expires: seconds since 1970.
    """

    id: Annotated[str, Text(64)]
    box: Annotated[str, Text(64)]
    portrait: Annotated[str, Text(64)]
    expires: Annotated[int, Whole(0, 1 << 40, "seconds")]


def check_key(key: str) -> bytes:
    """A key as it is used; raises `ServeError` where it could be guessed."""
    if len(key) < LEAST_KEY:
        raise ServeError(f"The key of the tickets is too short; use at least {LEAST_KEY} random characters.")
    return key.encode("utf-8", "surrogateescape")


def sign(ticket: Ticket, key: bytes) -> str:
    """The text that a visitor carries to the box."""
    payload = _encoded(json.dumps(asdict(ticket), separators=(",", ":")).encode())
    return f"{payload}.{_signature(payload, key)}"


def verify(text: str, key: bytes) -> Ticket:
    """A ticket that was signed with `key`, whatever box and time it is for; raises `TicketError`."""
    payload, _, signature = text.partition(".")
    if len(text) > LONGEST_TICKET or not text.isascii():
        raise TicketError(_ALTERED)
    if not hmac.compare_digest(signature.encode(), _signature(payload, key).encode()):
        raise TicketError(_ALTERED)
    try:
        return record_from(Ticket, json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (binascii.Error, ValueError, FieldError):
        raise TicketError(_ALTERED) from None


class Tickets:
    """Those of one box; used from the event loop alone."""

    def __init__(self, key: bytes, box: str, clock: Callable[[], float] = time.time) -> None:
        """Take tickets that were signed with `key` for the process `box`; `clock` gives seconds since 1970."""
        self.box = box
        self._key, self._clock = key, clock
        self._spent: dict[str, int] = {}

    def check(self, text: str | None, portrait: str | None = None) -> Ticket:
        """The ticket, which is not used up by this.

        Args:
            text: what the visitor brings, if anything.
            portrait: the id that they ask for; None asks for the ticket's.

        Raises:
            TicketError: no ticket, altered, of another box, expired, used before, or of another portrait.
        """
        if text is None:
            raise TicketError("This box takes visitors with a ticket only; ask the fleet's dispatcher for one.")
        ticket = verify(text, self._key)
        if ticket.box != self.box:
            raise TicketError("The ticket is for another box, or this one has started anew; ask for another one.")
        left = ticket.expires - self._clock()
        if left <= 0:
            raise TicketError("The ticket has expired; ask the dispatcher for another one.")
        if left > LONGEST_SECONDS:
            raise TicketError("The ticket holds for longer than an hour; set the clocks of dispatcher and box right.")
        if ticket.id in self._spent:
            raise TicketError("The ticket has been used before; ask the dispatcher for another one.")
        if portrait not in (None, ticket.portrait) and ticket.portrait != OWN_PORTRAIT:
            raise TicketError("The ticket is for another portrait; ask for one with the portrait that you want.")
        return ticket

    def spend(self, ticket: Ticket) -> None:
        """Use up a ticket that `check` gave."""
        self._spent[ticket.id] = ticket.expires

    def spent(self) -> list[str]:
        """Ids of those that were used and have not expired."""
        now = self._clock()
        self._spent = {id_: expires for id_, expires in self._spent.items() if expires > now}
        return list(self._spent)


def _signature(payload: str, key: bytes) -> str:
    return _encoded(hmac.new(key, payload.encode(), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
