"""Those who found every place taken come again one after another, as fast as places become free."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.fleet.turned_away import TurnedAway


def test_at_two_departures_a_second_the_next_ones_come_half_a_second_apart() -> None:
    away = TurnedAway()
    for number in range(600):
        away.departed(number / 2)
    waits = [away.wait(300.0) for _ in range(40)]
    assert waits[0] == 1.0
    assert waits[30] - waits[10] == pytest.approx(10.0, 0.05)


def test_promises_of_the_past_are_forgotten() -> None:
    away = TurnedAway()
    for number in range(100):
        away.departed(number)
    for _ in range(30):
        away.wait(100.0)
    assert away.wait(200.0) < 6.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 1e4)), max_size=50))
def test_a_wait_is_between_a_second_and_a_minute(events: list[tuple[bool, float]]) -> None:
    away = TurnedAway()
    for leaves, at in events:
        if leaves:
            away.departed(at)
        else:
            assert 1.0 <= away.wait(at) <= 60.0
