import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.serve.visits.voice_gate import Heard, VoiceGate

RATE, CHUNK = 16000, 0.64


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def heard(*sound: np.ndarray, block: int = 640) -> list[Heard]:
    gate, pcm = VoiceGate(RATE, CHUNK), np.concatenate(sound)
    parts: list[Heard] = []
    for start in range(0, pcm.size, block):
        parts += gate.hear(pcm[start : start + block], start / RATE)
    return parts


def test_silence_is_not_passed_on() -> None:
    assert heard(silence(5.0)) == []


def test_a_voice_is_passed_on_from_a_moment_before_it_to_a_pause_behind_it() -> None:
    said = voice(1.0)
    parts = heard(silence(2.0), said, silence(3.0))
    passed = np.concatenate([part.pcm for part in parts])
    start = np.flatnonzero(passed)[0]
    assert 0.2 * RATE <= start <= 0.25 * RATE
    np.testing.assert_array_equal(passed[start : start + said.size], said)
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert passed.size == 3 * round(CHUNK * RATE)


def test_each_sample_keeps_the_time_at_which_it_came() -> None:
    came = [part.came for part in heard(silence(1.0), voice(0.5), silence(1.0))]
    assert came == sorted(came)
    assert 0.7 < came[0] <= 0.8


def test_a_pause_between_words_does_not_end_what_is_said() -> None:
    parts = heard(voice(0.5), silence(0.3), voice(0.5), silence(2.0))
    assert sum(part.last for part in parts) == 1


def test_a_gate_that_was_shut_opens_for_what_is_said_next() -> None:
    gate = VoiceGate(RATE, CHUNK)
    assert list(gate.hear(voice(0.3), 0.0))
    gate.shut()
    assert not list(gate.hear(silence(1.0), 1.0))
    assert list(gate.hear(voice(0.1), 2.0))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.5)), max_size=8),
    st.integers(100, 4000),
)
def test_no_more_chunks_are_passed_on_than_come_in_and_no_voice_is_lost(spells, block: int) -> None:
    sound = [voice(length) if loud else silence(length) for loud, length in spells]
    parts = heard(*sound, silence(3.0), block=block)
    passed = np.concatenate([part.pcm for part in parts] or [silence(0)])
    every = np.concatenate([*sound, silence(0)])
    np.testing.assert_array_equal(passed[passed != 0], every[every != 0])
    # Whole chunks, up to the rounding of their length to samples.
    chunks = [0]
    for part in parts:
        chunks[-1] += part.pcm.size
        chunks += [0] * part.last
    assert all(count % round(CHUNK * RATE) == 0 for count in chunks)
    assert chunks[-1] == 0
