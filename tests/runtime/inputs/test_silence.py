"""What counts as silence, for sounds that a microphone in a room gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rap_edge.runtime.inputs.silence import SilenceDetector

RATE = 16000


def white(seconds: float, level_db: float, seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (10 ** (level_db / 20) * noise).astype(np.float32)


def rumble(seconds: float, level_db: float) -> NDArray[np.float32]:
    """Noise of a ventilation: white noise through a low pass at 100 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(round(seconds * RATE)))
    spectrum /= 1 + (np.fft.rfftfreq(round(seconds * RATE), 1 / RATE) / 100.0) ** 2
    low = np.fft.irfft(spectrum, round(seconds * RATE))
    return (10 ** (level_db / 20) * low / low.std()).astype(np.float32)


def words(seconds: float, level_db: float) -> NDArray[np.float32]:
    """A buzz of 120 Hz in words of 0.4 s with pauses of 0.1 s."""
    time = np.arange(round(seconds * RATE)) / RATE
    voice = np.sign(np.sin(2 * np.pi * 120 * time)) * (time % 0.5 < 0.4)
    return (10 ** (level_db / 20) * voice).astype(np.float32)


def heard(sound: NDArray[np.float32], chunk_seconds: float = 0.96) -> list[bool]:
    detector, size = SilenceDetector(RATE), round(chunk_seconds * RATE)
    return [detector.is_silent(sound[start : start + size]) for start in range(0, len(sound) - size + 1, size)]


@given(st.integers(1, 4000), st.floats(-1, 1), st.integers(0, 3999))
def test_one_loud_ten_milliseconds_break_the_silence(size: int, level: float, where: int) -> None:
    pcm = np.zeros(size, np.float32)
    pcm[where : where + 160] = level
    loud = any(np.sqrt((pcm[i : i + 160] ** 2).sum() / 160) > 1e-3 for i in range(0, size, 160))
    assert SilenceDetector(RATE).is_silent(pcm) is not loud


@pytest.mark.parametrize("noise", [white(20, -50), white(20, -45), rumble(20, -52)], ids=["-50 dB", "-45 dB", "rumble"])
def test_steady_noise_is_silence_after_three_seconds(noise: NDArray[np.float32]) -> None:
    found = heard(noise)
    assert found[:3] == [False] * 3
    assert all(found[4:])


@pytest.mark.parametrize(
    ("speech_db", "noise_db"), [(-20.0, -60.0), (-25.0, -45.0), (-38.0, -58.0)], ids=["near", "noisy", "far"]
)
def test_speech_over_noise_is_never_silence_and_the_pause_after_it_is(speech_db: float, noise_db: float) -> None:
    sound = white(30, noise_db)
    sound[8 * RATE : 20 * RATE] += words(12, speech_db)
    found = heard(sound, 1.0)
    assert all(found[4:8])
    assert not any(found[8:20])
    assert all(found[20:])


def test_what_is_loud_is_not_silence_however_steady() -> None:
    assert not any(heard(white(20, -30)))


def test_a_synthesiser_that_pauses_digitally_is_not_taken_for_noise() -> None:
    assert not any(heard(words(20, -45)))


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=6))
def test_the_floor_does_not_depend_on_how_a_steady_noise_is_cut(sizes: list[int]) -> None:
    """Blocks that are cut in two say nothing of the floor, so the least piece that counts is one whole block."""
    detector, noise = SilenceDetector(RATE), white(10, -50)
    for size in sizes:
        detector.is_silent(noise[:size])
    for _ in range(4):
        detector.is_silent(noise[:RATE])
    assert detector.is_silent(noise[:RATE])
