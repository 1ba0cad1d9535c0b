import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.inputs.soundtrack import Soundtrack


def noise(samples: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (samples, channels)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=6), st.lists(st.floats(0, 0.3), max_size=5))
def test_what_is_taken_is_what_was_pushed(pushes: list[int], times: list[float]) -> None:
    track, sound = Soundtrack(16000, 2, 16000, 2), noise(sum(pushes), 2)
    taken, start = [], 0
    for count, end in zip(pushes, sorted(times) + [0.3] * len(pushes), strict=False):
        track.push(sound[start : start + count])
        start += count
        taken.append(track.take_until(end))
        assert sum(map(len, taken)) <= round(end * 16000)
    track.finish()
    assert np.array_equal(np.concatenate([*taken, track.take_rest()]), sound)


def test_a_frame_gets_the_sound_of_its_own_time() -> None:
    track, sound = Soundtrack(48000, 1, 48000, 1), noise(48000, 1)
    track.push(sound)
    assert np.array_equal(track.take_until(0.25), sound[:12000])
    assert np.array_equal(track.take_until(0.75), sound[12000:36000])


def test_another_rate_is_resampled_in_place() -> None:
    track, sound = Soundtrack(192000, 2, 48000, 2), np.zeros((192000, 2), np.float32)
    sound[96000, 1] = 1.0
    track.push(sound)
    track.finish()
    out = track.take_rest()
    assert out.shape == (48000, 2)
    assert np.abs(out[:, 1]).argmax() == 24000
    assert np.abs(out[:, 0]).max() == 0.0


@pytest.mark.parametrize(("came", "goes"), [(6, 1), (6, 2), (2, 1), (1, 2)])
def test_channels_that_do_not_fit_become_one_that_is_heard_everywhere(came: int, goes: int) -> None:
    track, sound = Soundtrack(16000, came, 16000, goes), noise(100, came)
    track.push(sound)
    heard = track.take_rest()
    assert heard.shape == (100, goes)
    for channel in heard.T:
        assert channel == pytest.approx(sound.mean(axis=1), abs=1e-6)
