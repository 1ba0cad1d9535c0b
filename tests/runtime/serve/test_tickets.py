import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve.tickets import (
    LONGEST_SECONDS,
    LONGEST_TICKET,
    OWN_PORTRAIT,
    Ticket,
    TicketError,
    Tickets,
    check_key,
    sign,
    verify,
)

KEY = check_key("a key that only box and dispatcher know")
NOW = 1_800_000_000
TICKET = Ticket("one", "box-1", "p3", NOW + 30)
NAMES = st.text(string.ascii_letters + string.digits + "-_éü", max_size=64)


def tickets(now: float = NOW, box: str = "box-1") -> Tickets:
    return Tickets(KEY, box, lambda: now)


@settings(max_examples=50, deadline=None)
@given(NAMES, NAMES, NAMES, st.integers(0, 1 << 40))
def test_what_was_signed_comes_back(id_: str, box: str, portrait: str, expires: int) -> None:
    ticket = Ticket(id_, box, portrait, expires)
    text = sign(ticket, KEY)
    assert verify(text, KEY) == ticket
    assert len(text) <= LONGEST_TICKET


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_character_of_a_ticket_can_be_changed(data: st.DataObject) -> None:
    text = sign(TICKET, KEY)
    at = data.draw(st.integers(0, len(text)))
    altered = data.draw(
        st.one_of(
            st.characters().map(lambda new: text[:at] + new + text[at + 1 :]),
            st.characters().map(lambda new: text[:at] + new + text[at:]),
            st.just(text[:at]),
            st.just(text[:at] + text[at + 1 :]),
        )
    )
    if altered != text:
        with pytest.raises(TicketError, match=r"altered.*\.$"):
            verify(altered, KEY)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.text("." + string.ascii_letters + string.digits + "-_=", max_size=1500))
def test_what_a_stranger_makes_up_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(TicketError, match=r"\.$"):
        tickets().check(text)


def test_another_key_signs_nothing_here() -> None:
    with pytest.raises(TicketError, match="not one of this fleet's"):
        verify(sign(TICKET, check_key("another key of enough characters ...")), KEY)


@pytest.mark.parametrize(
    ("text", "desk", "portrait", "words"),
    [
        (None, tickets(), None, "with a ticket only"),
        (sign(TICKET, KEY), tickets(box="box-2"), None, "another box"),
        (sign(TICKET, KEY), tickets(now=NOW + 30), None, "expired"),
        (sign(TICKET, KEY), tickets(now=NOW + 29 - LONGEST_SECONDS), None, "clocks"),
        (sign(TICKET, KEY), tickets(), "p4", "another portrait"),
    ],
)
def test_a_ticket_opens_its_own_place_in_its_own_time(
    text: str | None, desk: Tickets, portrait: str | None, words: str
) -> None:
    with pytest.raises(TicketError, match=words):
        desk.check(text, portrait)


def test_a_ticket_is_used_once_and_remembered_until_it_expires() -> None:
    now = [float(NOW)]
    desk = Tickets(KEY, "box-1", lambda: now[0])
    text = sign(TICKET, KEY)
    assert desk.check(text, "p3") == desk.check(text) == TICKET
    desk.spend(TICKET)
    with pytest.raises(TicketError, match="used before"):
        desk.check(text)
    assert desk.spent() == ["one"]
    now[0] += 30
    with pytest.raises(TicketError, match="expired"):
        desk.check(text)
    assert desk.spent() == []


def test_a_ticket_for_a_picture_of_ones_own_is_for_whatever_it_is_called_there() -> None:
    own = Ticket("one", "box-1", OWN_PORTRAIT, NOW + 30)
    assert tickets().check(sign(own, KEY), "a name that the box gave") == own


def test_a_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ServeError, match="at least 32"):
        check_key("short")
