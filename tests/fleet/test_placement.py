"""No box is promised more visitors than it has places, whatever boxes, visitors and the network do."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from rap_edge.fleet.placement import BoxStatus, FullHouseError, Load, Placement

LIFETIME, SLACK, FRESH = 30.0, 2.0, 5.0


def fleet(*places: int, at: float = 0.0) -> Placement:
    """Empty boxes a, b, c ... with so many places."""
    placement = Placement(lifetime=LIFETIME, slack=SLACK, fresh=FRESH)
    for name, count in zip("abcdefgh", places, strict=False):
        placement.join(name)
        placement.heard(name, BoxStatus(count, set()), at)
    return placement


def reserved(placement: Placement, count: int, at: float = 1.0, prefix: str = "t") -> list[str]:
    """The boxes of so many reservations."""
    return [placement.reserve(f"{prefix}{number}", at).box for number in range(count)]


def test_the_box_with_the_most_free_places_is_taken_and_equals_in_turn() -> None:
    assert reserved(fleet(2, 3, 2), 7) == ["b", "a", "c", "b", "a", "c", "b"]


def test_a_burst_of_ten_thousand_takes_every_place_once() -> None:
    placement = Placement()
    places = {f"box{number}": 1 + number % 7 for number in range(1000)}
    for box, count in places.items():
        placement.join(box)
        placement.heard(box, BoxStatus(count, set()), 0.0)
    taken = dict.fromkeys(places, 0)
    refused = 0
    for number in range(10_000):
        try:
            taken[placement.reserve(f"t{number}", 1.0).box] += 1
        except FullHouseError:
            refused += 1
    assert taken == places
    assert refused == 10_000 - sum(places.values())


def test_a_full_house_says_when_to_come_again() -> None:
    placement = fleet(1)
    placement.reserve("first", 1.0)
    with pytest.raises(FullHouseError, match=r"^Every place is taken; come again in 1 s\.$") as refused:
        placement.reserve("second", 1.0)
    assert refused.value.retry_after == 1.0


def test_a_ticket_that_expired_unused_gives_its_place_back_once_the_box_has_been_asked_later() -> None:
    placement = fleet(1)
    expires = placement.reserve("first", 1.0).expires
    assert expires == 31.0
    # In the last moment of its clock, which is behind, the box may have let the visitor in.
    placement.heard("a", BoxStatus(1, set()), expires + SLACK - 0.1)
    with pytest.raises(FullHouseError):
        placement.reserve("second", expires + SLACK + 1.0)
    placement.heard("a", BoxStatus(1, set()), expires + SLACK)
    assert placement.reserve("second", expires + SLACK + 1.0).box == "a"


def test_a_visitor_who_has_left_gives_the_place_back_with_the_next_status() -> None:
    placement = fleet(1)
    placement.reserve("first", 1.0)
    placement.heard("a", BoxStatus(1, {"first"}), 2.0)
    with pytest.raises(FullHouseError):
        placement.reserve("second", 3.0)
    placement.heard("a", BoxStatus(1, set()), 4.0)
    assert placement.reserve("second", 4.0).box == "a"


def test_an_answer_that_is_late_changes_nothing() -> None:
    placement = fleet(1)
    placement.reserve("first", 1.0)
    placement.heard("a", BoxStatus(1, {"first"}), 3.0)
    placement.heard("a", BoxStatus(1, set()), 2.0)
    assert placement.taken("a") == 1


def test_a_ticket_that_never_left_the_house_gives_its_place_back_at_once() -> None:
    placement = fleet(1)
    placement.reserve("first", 1.0)
    placement.release("first", 1.0)
    placement.release("first", 1.0)
    assert placement.reserve("second", 1.0).box == "a"


def test_a_draining_box_takes_nobody_and_forgets_nobody() -> None:
    placement = fleet(3, 3)
    assert reserved(placement, 2) == ["a", "b"]
    placement.drain("a")
    placement.heard("a", BoxStatus(3, {"t0"}), 2.0)
    placement.heard("b", BoxStatus(3, {"t1"}, draining=True), 2.0)
    with pytest.raises(FullHouseError):
        placement.reserve("late", 3.0)
    assert (placement.taken("a"), placement.taken("b")) == (1, 1)
    assert placement.load(3.0) == Load(0, 0, 0)


def test_a_lost_box_takes_its_visitors_with_it_and_is_not_raised_by_a_late_answer() -> None:
    placement = fleet(2, 1)
    assert reserved(placement, 2) == ["a", "b"]
    assert placement.lost("a") == {"t0"}
    placement.heard("a", BoxStatus(2, set()), 2.0)
    assert placement.taken("a") == 0
    assert placement.lost("a") == frozenset()


def test_a_box_that_is_not_heard_of_is_not_offered_until_it_is() -> None:
    placement = fleet(2)
    placement.reserve("first", FRESH)
    with pytest.raises(FullHouseError):
        placement.reserve("second", FRESH + 0.1)
    placement.heard("a", BoxStatus(2, set()), FRESH)
    assert placement.reserve("second", FRESH + 0.1).box == "a"
    assert placement.load(FRESH + 1.0) == Load(1, 2, 2)


def test_visitors_whom_nobody_here_has_sent_count_as_well() -> None:
    placement = fleet(2)
    placement.heard("a", BoxStatus(2, {"before", "too"}), 1.0)
    with pytest.raises(FullHouseError):
        placement.reserve("first", 1.0)


def test_a_ticket_is_handed_out_once() -> None:
    placement = fleet(2)
    placement.reserve("first", 1.0)
    with pytest.raises(ValueError, match="first"):
        placement.reserve("first", 1.0)


@dataclass
class RealBox:
    """What goes on at a box: who is there, and which tickets it would let in."""

    places: int
    clock: float  # behind the dispatcher's
    inside: set[str] = field(default_factory=set)
    draining: bool = False


class Recount:
    """What `Placement` keeps up to date, counted afresh from all that has happened."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[float, BoxStatus]] = {}
        self.issued: dict[str, tuple[str, float]] = {}
        self.seen: set[str] = set()
        self.drained: set[str] = set()

    def heard(self, name: str, status: BoxStatus, asked: float) -> None:
        if asked >= self.last.get(name, (0.0, None))[0]:
            self.last[name] = asked, status
            self.seen |= status.held

    def taken(self, name: str) -> int:
        asked, status = self.last.get(name, (0.0, BoxStatus(0, frozenset())))
        waiting = [
            ticket
            for ticket, (box, expires) in self.issued.items()
            if box == name and ticket not in self.seen and asked < expires + SLACK
        ]
        return len(status.held) + len(waiting)

    def free(self, name: str, at: float) -> int:
        asked, status = self.last.get(name, (-1e9, BoxStatus(0, frozenset())))
        offered = at - asked <= FRESH and not status.draining and name not in self.drained
        return max(0, status.places - self.taken(name)) if offered else 0


class AnyFleet(RuleBasedStateMachine):
    """Boxes that lag, drain and die; visitors who come late, leave, or never come; answers that overtake each other."""

    boxes = Bundle("boxes")
    answers = Bundle("answers")

    def __init__(self) -> None:
        super().__init__()
        self.placement = Placement(lifetime=LIFETIME, slack=SLACK, fresh=FRESH)
        self.at = 0.0
        self.alive: dict[str, RealBox] = {}
        self.tickets: dict[str, tuple[str, float]] = {}  # not used yet: its box, and when it expires
        self.count = 0
        self.recount = Recount()

    @rule(target=boxes, places=st.integers(1, 4), clock=st.floats(0.0, SLACK))
    def start(self, places: int, clock: float) -> str:
        self.count += 1
        name = f"box{self.count}"
        self.alive[name] = RealBox(places, clock)
        self.placement.join(name)
        return name

    @rule(seconds=st.sampled_from((0.1, 1.0, 4.0, 20.0)))
    def wait(self, seconds: float) -> None:
        self.at += seconds

    @rule(target=answers, name=boxes)
    def ask(self, name: str):
        """The answer is on its way; `tell` delivers it now or never, once or twice."""
        if (box := self.alive.get(name)) is None:
            return multiple()
        return name, BoxStatus(box.places, frozenset(box.inside), box.draining), self.at

    @rule(answer=answers)
    def tell(self, answer: tuple[str, BoxStatus, float]) -> None:
        self.hear(*answer)

    @rule(name=boxes)
    def ask_and_tell(self, name: str) -> None:
        if (box := self.alive.get(name)) is not None:
            self.hear(name, BoxStatus(box.places, frozenset(box.inside), box.draining), self.at)

    def hear(self, name: str, status: BoxStatus, asked: float) -> None:
        self.placement.heard(name, status, asked)
        if name in self.alive:
            self.recount.heard(name, status, asked)

    @rule(burst=st.integers(1, 6))
    def come(self, burst: int) -> None:
        for _ in range(burst):
            self.count += 1
            free = {name: self.recount.free(name, self.at) for name in self.alive}
            try:
                given = self.placement.reserve(f"t{self.count}", self.at)
            except FullHouseError:
                assert max(free.values(), default=0) == 0
            else:
                assert free[given.box] == max(free.values()) > 0
                self.tickets[given.ticket] = self.recount.issued[given.ticket] = (given.box, given.expires)

    @rule(data=st.data())
    def enter(self, data: st.DataObject) -> None:
        if self.tickets:
            ticket = data.draw(st.sampled_from(sorted(self.tickets)))
            name, expires = self.tickets.pop(ticket)
            box = self.alive.get(name)
            if box is not None and self.at - box.clock < expires:
                box.inside.add(ticket)

    @rule(name=boxes, data=st.data())
    def leave(self, name: str, data: st.DataObject) -> None:
        if (box := self.alive.get(name)) is not None and box.inside:
            box.inside.remove(data.draw(st.sampled_from(sorted(box.inside))))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.tickets:
            ticket = data.draw(st.sampled_from(sorted(self.tickets)))
            del self.tickets[ticket], self.recount.issued[ticket]
            self.placement.release(ticket, self.at)

    @rule(name=boxes)
    def drain(self, name: str) -> None:
        if name in self.alive:
            self.alive[name].draining = True
            self.placement.drain(name)
            self.recount.drained.add(name)

    @rule(name=boxes)
    def die(self, name: str) -> None:
        if self.alive.pop(name, None) is not None:
            self.placement.lost(name)
            self.tickets = {ticket: at for ticket, at in self.tickets.items() if at[0] != name}

    @invariant()
    def every_ticket_that_is_good_has_a_place(self) -> None:
        for name, box in self.alive.items():
            good = [t for t, (home, expires) in self.tickets.items() if home == name and self.at - box.clock < expires]
            assert len(box.inside) + len(good) <= box.places, name
            assert self.placement.taken(name) == self.recount.taken(name)


AnyFleet.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnyFleet = AnyFleet.TestCase
