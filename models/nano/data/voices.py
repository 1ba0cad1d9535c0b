"""Other synthesizers than espeak-ng, with the mouth that speaks: Festival and Flite, as Debian packages bring them.

Both tell the end of every phone. A phone of a stop begins with the lips' closure here and with its burst in
espeak-ng, whose convention `speech.mouth_track` takes.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import SpeechError
from .speech import FRAME_RATE, FRAME_SAMPLES, SAMPLE_RATE, Floats, Phoneme, Utterance, has_shape, mouth_track, resample

FESTIVAL_VOICES = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts", "lp_diphone", "pc_diphone")
"""English thrice, Italian twice."""
FLITE_VOICES = ("awb", "rms")
"""Recordings of speakers whom no voice of Festival has."""

_CLOSED = {"p": 0.045, "b": 0.030}  # seconds from the closure to the burst, as `speech` counts
_MARKS = frozenset(" ːˑˈˌ̩̃ʲʰ̪̚ˠ")
_LONGEST = 60.0  # seconds that a sentence may take to be spoken

_RADIO: Mapping[str, str] = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "b": "b", "ch": "tʃ",
    "d": "d", "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "əl", "em": "əm", "en": "ən", "er": "ɜ", "ey": "eɪ", "f": "f",
    "g": "ɡ", "hh": "h", "hv": "h", "ih": "ɪ", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n",
    "nx": "n", "ng": "ŋ", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ",
    "uh": "ʊ", "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
_ITALIAN: Mapping[str, str] = {
    "a": "a", "e": "e", "E": "ɛ", "i": "i", "o": "o", "O": "ɔ", "u": "u", "j": "j", "w": "w", "b": "b", "d": "d",
    "g": "ɡ", "k": "k", "p": "p", "t": "t", "f": "f", "v": "v", "s": "s", "S": "ʃ", "z": "z", "ts": "ts", "dz": "dz",
    "tS": "tʃ", "dZ": "dʒ", "l": "l", "L": "l", "m": "m", "n": "n", "nf": "n", "ng": "ŋ", "J": "n", "r": "r",
}  # fmt: skip


def phonemes_of(phones: Sequence[tuple[str, float, float]], alphabet: Mapping[str, str] | None) -> tuple[Phoneme, ...]:
    """Phones (name, start, end) in seconds as `speech` wants them.

    Names that the alphabet lacks are pauses. Without an alphabet the names are letters of IPA, whose marks (length,
    stress) and blanks belong to the letter before.
    """
    found: list[Phoneme] = []
    for name, start, end in phones:
        if alphabet is None and name in _MARKS and found:
            found[-1] = Phoneme(found[-1].symbol, found[-1].start, end)
            continue
        symbol = alphabet.get(name, "") if alphabet is not None else name * has_shape(name)
        begins = min(start + _CLOSED.get(symbol, 0.0), max(start, end - 0.005))
        if end > begins:
            found.append(Phoneme(symbol, begins, end))
    return tuple(found)


def utterance(waveform: Floats, rate: int, phonemes: tuple[Phoneme, ...], pitch: float = 1.0) -> Utterance:
    """Speech as `speech.synthesize` gives it.

    Args:
        waveform: float32 [samples] in -1..1.
        rate: Hz.
        phonemes: what was said when.
        pitch: factor of the pitch and of the pace; speech of half the pace comes out at its usual one with 2.

    Raises:
        SpeechError: nothing is said.
    """
    if not any(phoneme.symbol for phoneme in phonemes):
        raise SpeechError("The synthesizer said nothing; give it a text with words.")
    sound = resample(waveform, round(rate * pitch), SAMPLE_RATE)
    frames = -(-len(sound) * FRAME_RATE // SAMPLE_RATE)
    padded = np.zeros(frames * FRAME_SAMPLES, np.float32)
    padded[: len(sound)] = np.clip(sound, -1, 1)
    timed = tuple(Phoneme(each.symbol, each.start / pitch, each.end / pitch) for each in phonemes)
    return Utterance(padded, mouth_track(timed, frames), timed)


def festival(text: str, voice: str, stretch: float = 1.0, pitch: float = 1.0) -> Utterance:
    """Speak by Festival.

    Args:
        text: English, or Italian for the voices lp and pc.
        voice: one of `FESTIVAL_VOICES`.
        stretch: length of the speech, 1 as the voice speaks.
        pitch: factor of the pitch.

    Raises:
        SpeechError: Festival or the voice is not installed, or nothing was said.
    """
    if voice not in FESTIVAL_VOICES:
        raise SpeechError(f"Festival's voice '{voice}' is not known; use one of {', '.join(FESTIVAL_VOICES)}.")
    with tempfile.TemporaryDirectory() as folder:
        sound, labels = Path(folder, "said.wav"), Path(folder, "said.lab")
        words = text.replace("\\", " ").replace('"', " ")
        script = (
            f"(voice_{voice})\n(Parameter.set 'Duration_Stretch {stretch * pitch:.4f})\n"
            f'(set! said (utt.synth (Utterance Text "{words}")))\n'
            f'(utt.save.segs said "{labels}")\n(utt.save.wave said "{sound}" \'riff)\n'
        )
        _call(["festival", "--pipe"], script)
        waveform, rate = _read(sound)
        phones, start = [], 0.0
        for line in labels.read_text(encoding="latin-1").splitlines():
            parts = line.split()
            if len(parts) == 3:
                phones.append((parts[2].rstrip("1"), start, float(parts[0])))
                start = float(parts[0])
    alphabet = _ITALIAN if voice in ("lp_diphone", "pc_diphone") else _RADIO
    return utterance(waveform, rate, phonemes_of(phones, alphabet), pitch)


def flite(text: str, voice: str, stretch: float = 1.0, pitch: float = 1.0) -> Utterance:
    """Speak by Flite; arguments as for `festival`, the voice one of `FLITE_VOICES`.

    Raises:
        SpeechError: Flite is not installed, has no such voice, or nothing was said.
    """
    if voice not in FLITE_VOICES:
        raise SpeechError(f"Flite's voice '{voice}' is not known; use one of {', '.join(FLITE_VOICES)}.")
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder, "said.wav")
        setting = f"duration_stretch={stretch * pitch:.4f}"
        printed = _call(["flite", "-voice", voice, "--setf", setting, "-psdur", "-o", str(sound), "-t", text], "")
        waveform, rate = _read(sound)
    phones, start = [], 0.0
    for item in printed.split():
        name, _, end = item.partition(":")
        phones.append((name, start, float(end)))
        start = float(end)
    return utterance(waveform, rate, phonemes_of(phones, _RADIO), pitch)


def _call(command: list[str], given: str) -> str:
    if shutil.which(command[0]) is None:
        raise SpeechError(f"{command[0]} is not installed; install the package {command[0]} and its voices.")
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_LONGEST, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SpeechError(f"{command[0]} did not speak ({error}); check that its voices are installed.") from error
    return done.stdout


def _read(file: Path) -> tuple[Floats, int]:
    if not file.exists():
        raise SpeechError("The synthesizer wrote no sound; check that its voices are installed.")
    with wave.open(str(file), "rb") as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        return (samples / 32768).astype(np.float32), sound.getframerate()
