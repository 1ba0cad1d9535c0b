"""Speech: sound and mouth that fit together, held-out sentences and voices, and a resampler that keeps pitch."""

import numpy as np
import pytest

from rap_edge.models.nano.data import sentences
from rap_edge.models.nano.data.speech import Phoneme, Voice, mouth_track, resample, synthesize
from rap_edge.models.nano.errors import SpeechError

VOICE = Voice("en-us+f3", rate=160)


def frame_of(seconds: float) -> int:
    return int(seconds * 25)


def test_frames_and_samples_agree() -> None:
    speech = synthesize("A short sentence.", VOICE)
    assert len(speech.waveform) == 640 * len(speech.mouth)
    assert speech.mouth.shape[1] == 5
    assert speech.mouth.min() >= 0
    assert speech.mouth.max() <= 1


def test_same_text_and_voice_give_the_same_mouth() -> None:
    breathy = Voice("en-gb-scotland+m2")
    first = synthesize("Simply the same.", breathy)
    synthesize("Something else in between.", VOICE)
    again = synthesize("Simply the same.", breathy)
    # The length of every sound depends by up to 10 ms on what espeak-ng said before.
    assert again.mouth.shape == first.mouth.shape
    assert np.corrcoef(again.mouth[:, 0], first.mouth[:, 0])[0, 1] > 0.9
    assert [phoneme.symbol for phoneme in again.phonemes] == [phoneme.symbol for phoneme in first.phonemes]


@pytest.mark.parametrize("word", ["papa", "mama", "baby"])
def test_bilabials_close_the_mouth(word: str) -> None:
    speech = synthesize(f"a {word} a", VOICE)
    for phoneme in speech.phonemes:
        if phoneme.symbol in ("p", "b", "m") and phoneme.start > 0.05:
            near = speech.mouth[frame_of(phoneme.start) - 1 : frame_of(phoneme.end) + 1, 0]
            assert near.min() < 0.05
    assert speech.mouth[:, 0].max() > 0.5


def test_pause_closes_the_mouth() -> None:
    track = mouth_track([Phoneme("a", 0.2, 0.4), Phoneme("", 0.4, 0.9), Phoneme("a", 0.9, 1.1)], 30)
    assert track[frame_of(0.3), 0] > 0.7
    assert track[frame_of(0.6) : frame_of(0.72), 0].max() == 0
    assert track[frame_of(1.0), 0] > 0.7


@pytest.mark.parametrize(("vowel", "column"), [("i", 1), ("u", 2), ("ɑ", 0)])
def test_vowels_have_their_shapes(vowel: str, column: int) -> None:
    track = mouth_track([Phoneme(vowel, 0.2, 0.5)], 20)
    assert track[frame_of(0.35), column] > 0.85


def test_diphthong_moves_from_its_first_to_its_second_vowel() -> None:
    track = mouth_track([Phoneme("aɪ", 0.2, 0.6)], 20)
    assert track[frame_of(0.3), 0] > track[frame_of(0.5), 0] + 0.2


def test_mouth_moves_within_eight_frames() -> None:
    mouth = synthesize("Every evening we walk along the river and talk about the boats.", VOICE).mouth[:, 0]
    groups = mouth[: len(mouth) // 8 * 8].reshape(-1, 8)
    inside = ((groups - groups.mean(1, keepdims=True)) ** 2).mean()
    assert 0.3 < inside / mouth.var() < 0.85


def test_loud_frames_have_an_open_mouth() -> None:
    speech = synthesize("Mama and papa saw a large, large farm. Bob came too.", VOICE)
    loudness = np.sqrt((speech.waveform.reshape(-1, 640) ** 2).mean(1))
    opening = speech.mouth[:, 0]
    assert opening[loudness > np.quantile(loudness, 0.8)].mean() > 2 * opening[loudness < 0.01].mean() + 0.2


def test_faster_voice_is_shorter() -> None:
    text = "The weather is lovely today."
    assert len(synthesize(text, Voice("en-us", 210)).mouth) < len(synthesize(text, Voice("en-us", 130)).mouth)


def test_unknown_voice_is_refused() -> None:
    with pytest.raises(SpeechError, match="no voice 'xx-nobody'"):
        synthesize("Hello.", Voice("xx-nobody"))


def test_text_without_words_is_refused() -> None:
    with pytest.raises(SpeechError, match="a text with words"):
        synthesize(" ... ", VOICE)


def test_resampling_keeps_a_tone() -> None:
    seconds = np.arange(22050) / 22050
    tone = resample(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), 22050, 16000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert len(tone) == 16000
    assert np.abs(tone - expected)[100:-100].max() < 1e-3


def test_resampling_removes_what_would_alias() -> None:
    seconds = np.arange(22050) / 22050
    tone = resample(np.sin(2 * np.pi * 9500 * seconds).astype(np.float32), 22050, 16000)
    assert np.abs(tone[100:-100]).max() < 0.01


def test_splits_share_no_sentence_and_no_voice() -> None:
    rng = np.random.default_rng(0)
    texts, voices = (
        {split: {draw(rng, split) for _ in range(300)} for split in sentences.SPLITS}
        for draw in (sentences.sample_text, lambda *pair: sentences.sample_voice(*pair).name)
    )
    assert len(texts["train"]) > 200
    assert not any(held in text for held in texts["held-out"] for text in texts["train"])
    assert len(voices["train"]) > 100
    assert len(voices["held-out"]) == len(sentences.HELD_OUT_VOICES)
    assert not voices["train"] & voices["held-out"]
