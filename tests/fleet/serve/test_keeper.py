"""As many boxes as are wanted, by the newest order, whatever happens to them; on a clock that a test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from helpers.fleet.fake_boxes import FakeBox, FakeBoxes

from rap_edge.fleet.placement import FullHouseError, Load, Placement
from rap_edge.fleet.serve.keeper import Keeper
from rap_edge.fleet.serve.order import Order
from rap_edge.fleet.serve.scale import Scale

ORDER = Order("first")


class House:
    """A keeper and its clock."""

    def __init__(self, boxes: FakeBoxes, least: int = 2, most: int = 2) -> None:
        self.now, self.boxes = 1000.0, boxes
        self.keeper = Keeper(boxes, ORDER, Scale(least, most), Placement(), lambda: self.now)

    async def rounds(self, number: int = 1) -> None:
        for _ in range(number):
            await self.keeper.round()
            self.now += 1.0

    def reserve(self, ticket: str) -> str:
        return self.keeper.placement.reserve(ticket, self.now).box

    @property
    def orders(self) -> list[tuple[str, bool]]:
        return [(box.order.bundle, box.draining) for box in self.boxes.there]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_boxes_are_started_and_offered_once_they_are_up() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes(up=False))
        await house.rounds(3)
        assert house.orders == [("first", False)] * 2
        with pytest.raises(FullHouseError):
            house.reserve("a")
        house.boxes.all[1].up = True
        await house.rounds()
        assert [house.reserve(ticket) for ticket in "ab"] == ["box-1", "box-1"]
        with pytest.raises(FullHouseError):
            house.reserve("c")

    run(scenario)


@pytest.mark.parametrize("how", ["gone", "ended"])
def test_a_box_that_dies_is_replaced_and_offered_to_nobody(how: str) -> None:
    async def scenario() -> None:
        house = House(FakeBoxes())
        await house.rounds(2)
        setattr(house.boxes.all[0], how, True)
        await house.rounds(2)
        assert [box.name for box in house.boxes.there] == ["box-1", "box-2"]
        assert {house.reserve(ticket) for ticket in "abcd"} == {"box-1", "box-2"}

    run(scenario)


def test_a_box_that_answers_nothing_for_a_minute_is_replaced() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes())
        await house.rounds(2)
        house.boxes.all[0].up = False
        await house.rounds(50)
        assert len(house.boxes.all) == 2
        await house.rounds(15)
        assert [box.name for box in house.boxes.there] == ["box-1", "box-2"]

    run(scenario)


def test_boxes_that_cannot_start_are_tried_ever_more_seldom_and_the_reason_is_kept() -> None:
    async def scenario() -> None:
        boxes = FakeBoxes(up=False)
        house = House(boxes, 1, 1)
        for _ in range(300):
            for box in boxes.there:
                box.ended, box.fault = True, "rap-serve: the bundle is damaged."
            await house.rounds()
        assert 5 <= len(boxes.all) <= 12
        assert house.keeper.failure == "rap-serve: the bundle is damaged."

    run(scenario)


def test_another_bundle_comes_up_before_an_old_box_goes_and_nobody_is_sent_away() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes())
        await house.rounds(2)
        house.boxes.all[0].held = {"visitor"}
        house.keeper.change("second")
        seen = []
        for _ in range(12):
            await house.rounds()
            taking = [bundle for bundle, draining in house.orders if not draining]
            assert len(taking) >= 2
            for box in house.boxes.there:
                box.ended = box.draining and not box.held
            seen.append(taking)
        assert seen[-1] == ["second", "second"]
        # Who is there stays.
        assert [box.name for box in house.boxes.there if box.draining] == ["box-0"]
        assert {house.reserve(ticket) for ticket in "abcd"} == {"box-2", "box-3"}

    run(scenario)


def test_where_there_is_no_room_for_a_new_box_an_old_one_goes_first() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes())
        await house.rounds(2)
        house.boxes.up = False
        house.keeper.change("second")
        await house.rounds(59)
        assert not any(box.draining for box in house.boxes.all)
        await house.rounds(10)
        assert sum(box.draining for box in house.boxes.all) == 1

    run(scenario)


def test_a_damaged_bundle_leaves_the_old_boxes_where_they_are() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes())
        await house.rounds(2)
        house.boxes.up = False
        house.keeper.change("damaged")
        for _ in range(200):
            for box in house.boxes.there:
                box.ended = box.order.bundle == "damaged"
            await house.rounds()
        assert house.orders.count(("first", False)) == 2
        assert house.keeper.failure

    run(scenario)


def test_the_next_dispatcher_goes_on_with_the_boxes_and_the_bundle_of_the_one_before() -> None:
    async def scenario() -> None:
        newer = Order("second", generation=3)
        boxes = FakeBoxes(FakeBox("a", newer, held={"x", "y"}), FakeBox("b", newer, held={"z"}), FakeBox("c", ORDER))
        boxes.all[2].draining = True
        house = House(boxes)
        await house.rounds(5)
        assert [box.name for box in boxes.there] == ["a", "b", "c"]
        assert house.keeper.order == newer
        assert house.keeper.placement.load(house.now) == Load(boxes=2, places=4, taken=3)
        assert house.reserve("new") == "b"
        with pytest.raises(FullHouseError):
            house.reserve("more")

    run(scenario)


def test_what_is_deployed_later_wins_also_over_boxes_that_were_changed_in_between() -> None:
    async def scenario() -> None:
        changed = Order("second", deployed=1.0, generation=4)
        boxes = FakeBoxes(FakeBox("a", changed), FakeBox("b", changed))
        later, earlier = House(boxes), House(boxes)
        later.keeper.order = Order("third", deployed=2.0)
        earlier.keeper.order = Order("first", deployed=1.0)
        for _ in range(20):
            # Ray lets the one before go only when the next one is there.
            await later.rounds()
            await earlier.rounds()
            for box in boxes.there:
                box.ended = box.draining
        assert {bundle for bundle, _ in later.orders} == {"third"}
        assert earlier.keeper.order.bundle == "third"
        assert 2 <= len(boxes.there) <= 3

    run(scenario)


def test_the_same_order_deployed_again_changes_no_box() -> None:
    async def scenario() -> None:
        boxes = FakeBoxes(FakeBox("a", ORDER), FakeBox("b", ORDER))
        house = House(boxes)
        house.keeper.order = Order("first", deployed=2.0)
        await house.rounds(20)
        assert [box.name for box in boxes.there] == ["a", "b"]
        assert not any(box.draining for box in boxes.all)

    run(scenario)


def test_a_ticket_that_was_used_and_whose_visitor_has_left_is_free_at_once() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes(), 1, 1)
        await house.rounds(2)
        box = house.boxes.all[0]
        for ticket in "ab":
            house.reserve(ticket)
        await house.rounds()
        with pytest.raises(FullHouseError):
            house.reserve("c")
        box.spent = {"a"}
        await house.rounds()
        house.reserve("c")
        with pytest.raises(FullHouseError):
            house.reserve("d")

    run(scenario)


def test_a_fleet_grows_with_its_visitors_and_shrinks_slowly_after_them() -> None:
    async def scenario() -> None:
        house = House(FakeBoxes(), 1, 3)
        await house.rounds(2)
        house.boxes.all[0].held = {"a", "b"}
        await house.rounds(3)
        assert len(house.boxes.all) == 2
        house.boxes.all[1].held = {"c", "d"}
        await house.rounds(20)
        assert len(house.boxes.all) == 3
        for box in house.boxes.all:
            box.held = set()
        await house.rounds(100)
        assert not any(box.draining for box in house.boxes.all)
        for _ in range(400):
            for box in house.boxes.there:
                box.ended = box.draining
            await house.rounds()
        assert len(house.boxes.there) == 1
        assert len(house.boxes.all) == 3

    run(scenario)


def test_a_question_that_waits_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        house = House(FakeBoxes(), 1, 1)
        await house.rounds(2)
        (known,) = house.keeper.known.values()
        asked, gate = [], asyncio.Event()
        said = known.box.said

        async def slow():
            asked.append(house.now)
            await gate.wait()
            return await said()

        monkeypatch.setattr(known.box, "said", slow)
        for _ in range(5):
            await asyncio.gather(*(house.keeper.ask(known, 0.01) for _ in range(100)))
            house.now += 1
        assert len(asked) == 1
        gate.set()
        await house.keeper.ask(known)
        # What is heard late is of the time at which it was asked.
        assert known.heard == asked[0]

    run(scenario)
