"""Tickets for the boxes of a fleet, many at once, and what its page is told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from helpers.fleet.fake_boxes import KEY, PORTRAITS, FakeBox, FakeBoxes

from rap_edge.fleet.placement import FullHouseError, Placement
from rap_edge.fleet.serve.dispatcher import Dispatcher, UnknownPortraitError
from rap_edge.fleet.serve.keeper import Keeper
from rap_edge.fleet.serve.order import Order
from rap_edge.fleet.serve.scale import Scale
from rap_edge.runtime.errors import FleetError
from rap_edge.runtime.serve.tickets import OWN_PORTRAIT, Ticket, Tickets, check_key


async def dispatcher(number: int = 2, places: int = 2) -> tuple[Dispatcher, FakeBoxes]:
    """One whose boxes are up."""
    boxes = FakeBoxes()
    keeper = Keeper(boxes, Order("first"), Scale(number, number), Placement(), time.monotonic)
    await keeper.round()
    for box in boxes.all:
        box.places = places
    await keeper.round()
    return Dispatcher(keeper, "/sessions"), boxes


def at_box(place: dict[str, Any], boxes: FakeBoxes) -> tuple[FakeBox, Ticket]:
    """The box that a visitor is sent to, and the ticket as it is read there."""
    box = next(box for box in boxes.all if box.status()["url"] == place["url"])
    desk = Tickets(check_key(KEY), box.status()["box"])
    return box, desk.check(place["ticket"], place["portrait"])


def test_a_visitor_gets_the_address_of_a_box_and_a_ticket_that_opens_it() -> None:
    async def scenario() -> None:
        house, boxes = await dispatcher()
        for wish, portrait in (({}, "p0"), ({"portrait": "p1"}, "p1"), ({"portrait": OWN_PORTRAIT}, OWN_PORTRAIT)):
            place = await house.reserve(wish)
            _, ticket = at_box(place, boxes)
            assert ticket.portrait == portrait
            assert 25 < ticket.expires - time.time() <= place["seconds"] == 30

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wish",
    [{"portrait": 1}, {"portrait": "x" * 65}, {"portrait": "\x1b"}, {"lost": 1}, {"lost": "x" * 513}, {"lost": []}],
)
def test_a_wish_that_is_none_is_refused_and_takes_no_place(wish: dict[str, Any]) -> None:
    async def scenario() -> None:
        house, _ = await dispatcher()
        with pytest.raises(FleetError, match=r"\.$"):
            await house.reserve(wish)
        with pytest.raises(UnknownPortraitError):
            await house.reserve({"portrait": "p9"})
        assert house.load().taken == 0

    asyncio.run(scenario())


def test_ten_thousand_at_once_get_as_many_tickets_as_there_are_places_and_each_is_single() -> None:
    async def scenario() -> None:
        house, boxes = await dispatcher(50, 3)
        answers = await asyncio.gather(*(house.reserve({}) for _ in range(10_000)), return_exceptions=True)
        given = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(given) == 150
        assert all(isinstance(answer, FullHouseError) for answer in answers if isinstance(answer, BaseException))
        read = [at_box(place, boxes) for place in given]
        assert set(Counter(box.name for box, _ in read).values()) == {3}
        assert len({ticket.id for _, ticket in read}) == 150

    asyncio.run(scenario())


def test_who_lost_a_box_is_not_sent_there_again() -> None:
    async def scenario() -> None:
        house, boxes = await dispatcher()
        boxes.all[0].gone = True
        for _ in range(2):
            assert (await house.reserve({"lost": "http://box-0"}))["url"] == "http://box-1"
        # Of one that is there nothing is believed.
        with pytest.raises(FullHouseError):
            await house.reserve({"lost": "http://box-1"})

    asyncio.run(scenario())


def test_a_box_that_is_too_busy_to_answer_is_as_it_said_last() -> None:
    async def scenario() -> None:
        house, boxes = await dispatcher()
        for box in boxes.all:
            box.up = False
        await house.keeper.round()
        at_box(await house.reserve({}), boxes)
        assert len(house.document()["boxes"]) == 2

    asyncio.run(scenario())


def test_the_page_is_told_whom_to_ask_for_a_place_and_gets_pictures_of_a_box() -> None:
    async def scenario() -> None:
        house, boxes = await dispatcher()
        described = await house.describe()
        assert (described["dispatcher"], described["sessions_max"]) == ("/sessions", 4)
        assert described["portraits"] == PORTRAITS
        assert await house.picture("p1") == ("image/png", b"first /api/portraits/p1")
        for name in ("p9", "../status", "own"):
            with pytest.raises(UnknownPortraitError):
                await house.picture(name)
        for box in boxes.all:
            box.gone = True
        await house.keeper.round()
        with pytest.raises(FullHouseError):
            await house.describe()

    asyncio.run(scenario())


def test_the_operator_sees_every_box_and_no_secret() -> None:
    async def scenario() -> None:
        house, _ = await dispatcher()
        document = house.document()
        assert [box["url"] for box in document["boxes"]] == ["http://box-0", "http://box-1"]
        assert KEY not in str(document)
        assert KEY not in repr(house.keeper.known)

    asyncio.run(scenario())
