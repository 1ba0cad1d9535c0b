"""Other synthesizers: phones become the mouths that say them, at any pace and pitch."""

import shutil

import numpy as np
import pytest

from rap_edge.models.nano.data.banks import Track, make_track
from rap_edge.models.nano.data.speech import Phoneme, Utterance
from rap_edge.models.nano.data.voices import festival, flite, phonemes_of, utterance
from rap_edge.models.nano.errors import SpeechError


def test_a_stop_closes_where_it_begins_and_bursts_where_espeak_would_say() -> None:
    phones = [("m", 0.0, 0.1), ("aa", 0.1, 0.3), ("p", 0.3, 0.4), ("pau", 0.4, 0.5)]
    found = phonemes_of(phones, {"m": "m", "aa": "ɑ", "p": "p"})
    assert [phoneme.symbol for phoneme in found] == ["m", "ɑ", "p", ""]
    assert found[2].start == pytest.approx(0.345)
    mouth = utterance(np.full(8000, 0.1, np.float32), 16000, found).mouth[:, 0]
    assert mouth[4] > 0.5
    assert mouth[8] < 0.05


def test_marks_of_ipa_belong_to_the_letter_before_them() -> None:
    found = phonemes_of([("a", 0.0, 0.1), ("ː", 0.1, 0.2), (" ", 0.2, 0.25), (".", 0.25, 0.4)], None)
    assert found == (Phoneme("a", 0.0, 0.25), Phoneme("", 0.25, 0.4))


def test_pitch_raises_the_tone_and_shortens_what_was_said_slowly() -> None:
    time = np.arange(16000) / 16000
    low = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    said = utterance(low, 16000, (Phoneme("a", 0.0, 1.0),), pitch=1.25)
    assert len(said.mouth) == 20
    assert np.argmax(np.abs(np.fft.rfft(said.waveform))) * 16000 / len(said.waveform) == pytest.approx(250, abs=3)
    assert said.phonemes[0].end == pytest.approx(0.8)


def test_a_track_holds_what_was_said_at_its_place() -> None:
    def speak(rng: np.random.Generator, split: str) -> Utterance:
        return utterance(np.full(16000, 0.1, np.float32), 16000, (Phoneme("a", 0.1, 0.9),))

    tracks = [make_track(speak, np.random.default_rng(seed), "train", 100) for seed in range(30)]
    assert any(not track.mouth.any() for track in tracks)
    for track in tracks:
        assert track.waveform.shape == (64000,)
        sounding = np.abs(track.waveform).reshape(100, 640).max(1) > 0
        assert sounding[track.mouth[:, 0] > 0].all()
    assert isinstance(tracks[0], Track)


@pytest.mark.parametrize("speak", [festival, flite])
def test_an_unknown_voice_is_named(speak: object) -> None:
    with pytest.raises(SpeechError, match="nobody"):
        speak("Hello.", "nobody")  # type: ignore[operator]


@pytest.mark.skipif(shutil.which("flite") is None, reason="Flite is not installed")
def test_flite_shuts_the_mouth_for_an_m_and_opens_it_for_an_a() -> None:
    said = flite("Mama.", "rms")
    letters = {phoneme.symbol: phoneme for phoneme in said.phonemes}
    assert said.mouth[int((letters["m"].start + 0.02) * 25), 0] < 0.15
    assert said.mouth[:, 0].max() > 0.5
