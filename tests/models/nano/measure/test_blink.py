import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cv2")

from rap_edge.models.nano.data.identity import Identity
from rap_edge.models.nano.data.renderer import neutral_motion, render
from rap_edge.models.nano.measure.blink import BlinkGauge, count_blinks


def test_drawn_blinks_are_counted_and_a_turning_head_is_not_taken_for_one() -> None:
    lids = np.zeros(60)
    for start in (8, 30, 50):
        lids[start : start + 6] = [0.3, 0.9, 1.0, 0.7, 0.3, 0.1]
    for seed in range(4):
        identity = Identity.sample(np.random.default_rng(seed))
        turn = 0.3 * np.sin(np.arange(60) / 9)
        frames = np.stack(
            [render(identity, neutral_motion(blink=b, yaw=y), 128) for b, y in zip(lids, turn, strict=True)]
        )
        gauge = BlinkGauge.calibrate(identity, 128)
        assert count_blinks(gauge.closed(frames)) == 3
        still = np.stack([render(identity, neutral_motion(yaw=y), 128) for y in turn])
        assert count_blinks(gauge.closed(still)) == 0


@given(st.lists(st.floats(-0.2, 1.2), max_size=50))
def test_lids_that_flutter_between_open_and_shut_are_one_blink(lids: list[float]) -> None:
    assert count_blinks(lids) <= 1 + sum(value < 0.3 for value in lids)
    assert count_blinks([value for value in lids if value <= 0.5]) == 0
