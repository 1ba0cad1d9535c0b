"""What a client asks for beside its sound, over either transport."""

from __future__ import annotations

from ...errors import ServeError
from ..visits.seat import Seat
from .protocol import parse_verb


def obey(seat: Seat, text: str | bytes) -> None:
    """Do what a message asks for; what is not understood is passed over with a sentence, as versions differ."""
    try:
        verb = parse_verb(text, seat.verbs)
    except ServeError as error:
        seat.notice("unknown-message", str(error))
    else:
        seat.verbs[verb]()
