from rap_edge.fleet.placement import Load
from rap_edge.fleet.serve.scale import Scale


def test_boxes_are_started_before_the_last_place_is_taken_and_never_more_than_allowed() -> None:
    scale = Scale(2, 4)
    wanted = [scale.wanted(Load(2, 20, taken), at) for at, taken in enumerate((0, 16, 17, 24, 25, 33, 1000))]
    assert wanted == [2, 2, 3, 3, 4, 4, 4]


def test_one_box_at_a_time_is_given_up_after_two_quiet_minutes_each() -> None:
    scale = Scale(1, 4)
    assert scale.wanted(Load(4, 40, 32), 0) == 4
    quiet = {at: scale.wanted(Load(4, 40, 0), at) for at in range(1, 400)}
    assert [quiet[at] for at in (119, 121, 239, 241, 359, 361, 399)] == [4, 3, 3, 2, 2, 1, 1]


def test_a_fleet_that_is_there_is_not_made_smaller_because_somebody_new_looks_at_it() -> None:
    assert Scale(1, 4).wanted(Load(3, 30, 0), 5000.0) == 3
    assert Scale(2, 4).wanted(Load(0, 0, 0), 0.0) == 2
