"""What happens to a voice on its way: as loud, as narrow and as noisy as it says."""

import numpy as np
import pytest

from rap_edge.models.nano.data.effects import band, beside, loudness, music, no_voice, noise, room, spoil, telephone

RNG = np.random.default_rng


def voice() -> np.ndarray:
    time = np.arange(16000) / 16000
    wave = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 40)) * np.sin(2 * np.pi * 3 * time) ** 2
    return (0.1 * wave).astype(np.float32)


def test_music_beside_a_voice_is_as_much_quieter_as_asked() -> None:
    other = music(RNG(0), 16000)
    added = beside(voice(), other, 10.0) - voice()
    assert 20 * np.log10(loudness(voice()) / np.sqrt(np.mean(added**2))) == pytest.approx(10.0, abs=0.1)


def test_a_telephone_lets_only_its_band_through() -> None:
    spectrum, heard = (np.abs(np.fft.rfft(sound)) ** 2 for sound in (voice(), telephone(voice())))
    assert heard[:150].sum() < 0.1 * spectrum[:150].sum()
    assert heard[5000:].sum() < 0.1 * spectrum[5000:].sum() + 1e-3 * heard.sum()
    assert heard[400:3000].sum() == pytest.approx(spectrum[400:3000].sum(), rel=0.2)


def test_a_room_goes_on_sounding_and_comes_from_the_past_alone() -> None:
    knock = np.zeros(8000, np.float32)
    knock[2000] = 1.0
    heard = room(knock, RNG(1))
    assert np.abs(heard[:1990]).max() < 1e-4
    assert np.abs(heard[2200:4000]).max() > 1e-4


def test_a_band_keeps_what_lies_in_it() -> None:
    time = np.arange(16000) / 16000
    inside, outside = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (1000, 200))
    assert np.std(band(inside, 400, 3000)) > 0.69
    assert np.std(band(outside, 400, 3000)) < 0.05


def test_sounds_without_a_voice_are_finite_and_equally_loud() -> None:
    for seed in range(12):
        sound = no_voice(RNG(seed), 8000)
        assert sound.shape == (8000,)
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(1.0, rel=0.05)


def test_a_spoilt_voice_is_finite_and_not_always_the_same() -> None:
    spoilt = [spoil(voice(), RNG(seed)) for seed in range(12)]
    assert all(np.isfinite(sound).all() and sound.shape == (16000,) for sound in spoilt)
    assert len({sound.tobytes() for sound in spoilt}) > 6


def test_noise_has_unit_power() -> None:
    rng = RNG(0)
    for _ in range(8):
        assert np.sqrt(np.mean(noise(rng, 16000) ** 2)) == pytest.approx(1, abs=1e-3)
