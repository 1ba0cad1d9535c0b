"""Reading a living head off its frames, and the life that the data has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.models.nano.data.identity import Identity
from rap_edge.models.nano.data.life import life
from rap_edge.models.nano.data.renderer import MOTION_COLUMNS, render
from rap_edge.models.nano.data.view import LIGHTS, View
from rap_edge.models.nano.errors import MeasureError
from rap_edge.models.nano.measure.life import LifeGauge, count_blinks, pooled_spread


def living(seed: int, frames: int) -> np.ndarray:
    motion = np.zeros((frames, len(MOTION_COLUMNS)), np.float32)
    motion[:, 5:] = life(np.random.default_rng(seed), frames + 40)[40:]
    motion[:, 0] = np.abs(np.sin(np.arange(frames) * 0.4)) * 0.7
    return motion


@pytest.mark.parametrize(
    ("seed", "view"), [(0, View()), (1, LIGHTS["grey"]), (2, LIGHTS["dark"]), (3, View(scale=0.8))]
)
def test_pose_and_lids_are_read_from_the_frames_of_a_talking_face(seed: int, view: View) -> None:
    identity, motion = Identity.sample(np.random.default_rng(seed)), living(seed, 40)
    frames = view.straighten(np.stack([render(identity, row, 256, view) for row in motion]))
    found = LifeGauge(identity, 256, view).read(frames)
    assert np.abs(found.pose - motion[:, 5:10]).mean() < 0.06
    assert found.blinks == count_blinks(motion[:, 10])
    assert found.spread()["head"] == pytest.approx(float(np.sqrt(motion[:, 5:10].var(0).mean())), rel=0.25)


def test_gaze_is_read_and_a_picture_that_never_moves_does_not_live() -> None:
    identity = Identity.sample(np.random.default_rng(5))
    motion = np.zeros((12, len(MOTION_COLUMNS)), np.float32)
    motion[:, 11] = np.linspace(-0.6, 0.6, 12)
    frames = np.stack([render(identity, row) for row in motion])
    gauge = LifeGauge(identity, 256)
    assert np.corrcoef(gauge.read(frames).gaze[:, 0], motion[:, 11])[0, 1] > 0.95
    still = gauge.read(np.repeat(frames[:1], 8, 0))
    assert pooled_spread([still]) == pytest.approx({"head": 0.0, "gaze": 0.0}, abs=1e-3)
    with pytest.raises(MeasureError, match="shape"):
        gauge.read(frames[:, :128])


def test_heads_begin_in_the_portraits_pose_and_blink_as_often_as_people_do() -> None:
    clips = [life(np.random.default_rng(seed), 750) for seed in range(60)]
    assert np.abs(np.stack(clips)[:, 0]).max() < 0.01
    per_minute = float(np.mean([2 * count_blinks(clip[:, 5]) for clip in clips]))
    assert 12 < per_minute < 23
    spread = np.mean([clip[100:].std(0) for clip in clips], 0)
    assert (spread[:5] > 0.12).all()
    assert (spread[6:] > 0.12).all()
    assert max(np.abs(np.diff(clip[:, :5], axis=0)).max() for clip in clips) < 0.2


@given(st.lists(st.floats(-0.2, 1.2), max_size=50))
def test_lids_that_flutter_between_open_and_shut_are_one_blink(lids: list[float]) -> None:
    assert count_blinks(lids) <= 1 + sum(value < 0.3 for value in lids)
    assert count_blinks([value for value in lids if value <= 0.5]) == 0
