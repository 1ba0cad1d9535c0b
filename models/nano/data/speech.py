"""Speech with a known mouth: espeak-ng's waveform and phoneme timings, turned into mouth trajectories.

espeak-ng is called through its C interface (`speak_lib.h`) in the `espeakng-loader` wheel, in synchronous mode with
IPA phoneme events. Every IPA symbol has a target for the mouth; targets are held over the symbol's time, smoothed
(coarticulation), and closed again where lips must touch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import espeakng_loader
import numpy as np
import numpy.typing as npt

from ..errors import SpeechError

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
FRAME_RATE = 25
FRAME_SAMPLES = SAMPLE_RATE // FRAME_RATE
_FINE_RATE = 500  # trajectories are built at this rate, then sampled at the frames' centres
_SMOOTHING = 0.043  # seconds, standard deviation
_LEAD = 0.015  # seconds by which the mouth precedes the sound

_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS_IPA = 1 | 2
_DO_NOT_EXIT = 0x8000
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_CHARS_UTF8 = 1
_IPA = 2
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7


@dataclass(frozen=True)
class Voice:
    """A speaking voice.

    Attributes:
        name: espeak-ng voice with optional variant, for example `en-us+f3`.
        rate: words per minute, 80 to 450.
        pitch: 0 to 100.
        pitch_range: 0 (monotone) to 100.
    """

    name: str
    rate: int = 170
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class Phoneme:
    """One IPA symbol string (may be a diphthong) from `start` to `end` in seconds; an empty symbol is a pause."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Speech and the mouth that speaks it; frame i covers the audio of [i / 25, (i + 1) / 25) s.

    Attributes:
        waveform: float32 [samples], 16 kHz mono in -1..1, samples = 640 * frames.
        mouth: float32 [frames, 5] at 25 Hz, the first five columns of `renderer.MOTION_COLUMNS`, 0..1.
        phonemes: what was spoken, in order.
    """

    waveform: Floats
    mouth: Floats
    phonemes: tuple[Phoneme, ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    """The library, initialised once per process (it keeps global state, so it must not be used from two threads)."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        except OSError as error:
            raise SpeechError(
                f"espeak-ng could not be loaded ({error}); reinstall the package espeakng-loader."
            ) from error
        self._library.espeak_Synth.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        data = espeakng_loader.get_data_path().encode()
        options = _PHONEME_EVENTS_IPA | _DO_NOT_EXIT
        self.sample_rate = int(self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data, options))
        if self.sample_rate <= 0:
            raise SpeechError("espeak-ng could not read its data; reinstall the package espeakng-loader.")
        self._blocks: list[npt.NDArray[np.int16]] = []
        self._events: list[tuple[int, str]] = []
        # ctypes frees a callback that nobody holds.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events and events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                self._events.append((event.sample, event.id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    def speak(self, text: str, voice: Voice) -> tuple[npt.NDArray[np.int16], list[tuple[int, str]]]:
        """Samples at `sample_rate` and (sample, IPA symbol) at the start of every phoneme."""
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise SpeechError(f"espeak-ng has no voice '{voice.name}'; use one like 'en-us' or 'en+f3'.")
        settings = (
            (_PARAMETER_RATE, voice.rate),
            (_PARAMETER_PITCH, voice.pitch),
            (_PARAMETER_RANGE, voice.pitch_range),
        )
        for parameter, value in settings:
            self._library.espeak_SetParameter(parameter, value, 0)
        # Breath noise comes from rand().
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._blocks, self._events = [], []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._blocks:
            raise SpeechError(f"espeak-ng produced no sound for {text!r}; give it a text with words.")
        return np.concatenate(self._blocks), self._events

    def transcribe(self, text: str, voice: str) -> str:
        """The IPA of a text, its clauses apart by a blank."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SpeechError(f"espeak-ng has no voice '{voice}'; use one like 'en-us' or 'en+f3'.")
        call = self._library.espeak_TextToPhonemes
        call.argtypes, call.restype = (ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int), ctypes.c_char_p
        rest = ctypes.c_char_p(text.encode())
        clauses = []
        while rest.value:
            clauses.append((call(ctypes.byref(rest), _CHARS_UTF8, _IPA) or b"").decode("utf-8", "ignore"))
        return " ".join(clauses)


def ipa(text: str, voice: str) -> str:
    """The phonemes of a text in IPA as espeak-ng's `voice` would say it.

    Raises:
        SpeechError: the voice does not exist or espeak-ng cannot be loaded.
    """
    return _espeak().transcribe(text, voice)


@cache
def _espeak() -> _Espeak:
    return _Espeak()


def synthesize(text: str, voice: Voice) -> Utterance:
    """Speak a text.

    espeak-ng keeps the state of its oscillators, so a repeated utterance may differ by a sample or so in its timing.

    Raises:
        SpeechError: the voice does not exist, the text has no words, or espeak-ng cannot be loaded.
    """
    engine = _espeak()
    samples, events = engine.speak(text, voice)
    waveform = resample((samples / 32768).astype(np.float32), engine.sample_rate, SAMPLE_RATE)
    frames = -(-len(waveform) * FRAME_RATE // SAMPLE_RATE)
    padded = np.zeros(frames * FRAME_SAMPLES, np.float32)
    padded[: len(waveform)] = np.clip(waveform, -1, 1)
    ends = [sample for sample, _ in events[1:]] + [len(samples)]
    phonemes = tuple(
        Phoneme(_clean(symbol), start / engine.sample_rate, end / engine.sample_rate)
        for (start, symbol), end in zip(events, ends, strict=True)
        if end > start
    )
    if not any(phoneme.symbol for phoneme in phonemes):
        raise SpeechError(f"There is nothing to say in {text!r}; give espeak-ng a text with words.")
    return Utterance(padded, mouth_track(phonemes, frames), phonemes)


def resample(waveform: Floats, source_rate: int, target_rate: int) -> Floats:
    """Band-limited resampling by a Hann-windowed sinc of 16 zero crossings a side.

    Args:
        waveform: float32 [samples].
        source_rate, target_rate: Hz.

    Returns:
        float32 [ceil(samples * target_rate / source_rate)].
    """
    if source_rate == target_rate or len(waveform) == 0:
        return waveform.astype(np.float32)
    divisor = int(np.gcd(source_rate, target_rate))
    up, down = target_rate // divisor, source_rate // divisor
    cutoff = min(1.0, target_rate / source_rate) * 0.97
    reach = int(np.ceil(16 / cutoff))
    taps = np.arange(-reach, reach + 1)
    count = -(-len(waveform) * up // down)
    position = np.arange(count, dtype=np.int64) * down
    phase = np.arange(up)[:, None] / up
    distance = taps[None, :] - phase
    window = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / (reach + 1), -1, 1))
    kernel = cutoff * np.sinc(cutoff * distance) * window
    kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
    padded = np.pad(waveform.astype(np.float32), reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps))
    return np.asarray(np.einsum("nt,nt->n", windows[position // up], kernel[position % up]), np.float32)


# Targets per IPA symbol: open, wide, round, teeth, tongue.
_TARGETS: dict[str, tuple[float, float, float, float, float]] = {
    "a": (0.92, 0.35, 0.0, 0.6, 0.25),
    "æ": (0.88, 0.60, 0.0, 0.7, 0.25),
    "ɐ": (0.78, 0.20, 0.0, 0.5, 0.25),
    "ɑ": (1.00, 0.05, 0.1, 0.4, 0.15),
    "ɒ": (0.85, 0.00, 0.45, 0.3, 0.15),
    "ʌ": (0.72, 0.20, 0.0, 0.5, 0.25),
    "ɛ": (0.64, 0.60, 0.0, 0.7, 0.35),
    "e": (0.55, 0.70, 0.0, 0.8, 0.40),
    "ɜ": (0.48, 0.15, 0.3, 0.5, 0.35),
    "ɚ": (0.42, 0.10, 0.3, 0.5, 0.40),
    "ə": (0.42, 0.25, 0.0, 0.5, 0.30),
    "ᵻ": (0.34, 0.45, 0.0, 0.6, 0.35),
    "ɪ": (0.36, 0.60, 0.0, 0.7, 0.40),
    "i": (0.30, 0.95, 0.0, 0.9, 0.45),
    "y": (0.24, 0.10, 0.9, 0.3, 0.30),
    "ø": (0.42, 0.10, 0.8, 0.3, 0.30),
    "œ": (0.55, 0.10, 0.7, 0.3, 0.30),
    "ɔ": (0.74, 0.00, 0.65, 0.2, 0.15),
    "o": (0.56, 0.00, 0.85, 0.1, 0.15),
    "ʊ": (0.34, 0.00, 0.75, 0.2, 0.20),
    "u": (0.24, 0.00, 1.00, 0.0, 0.15),
    "ʉ": (0.26, 0.05, 0.85, 0.2, 0.25),
    "ɵ": (0.40, 0.05, 0.75, 0.2, 0.25),
    "ɘ": (0.42, 0.25, 0.0, 0.5, 0.30),
    "p": (0.00, 0.20, 0.1, 0.0, 0.0),
    "b": (0.00, 0.20, 0.1, 0.0, 0.0),
    "m": (0.00, 0.20, 0.1, 0.0, 0.0),
    "f": (0.10, 0.40, 0.0, 1.0, 0.0),
    "v": (0.10, 0.40, 0.0, 1.0, 0.0),
    "θ": (0.26, 0.40, 0.0, 0.9, 0.9),
    "ð": (0.26, 0.40, 0.0, 0.9, 0.9),
    "s": (0.15, 0.65, 0.0, 1.0, 0.1),
    "z": (0.15, 0.65, 0.0, 1.0, 0.1),
    "ʃ": (0.20, 0.10, 0.75, 0.9, 0.1),
    "ʒ": (0.20, 0.10, 0.75, 0.9, 0.1),
    "t": (0.22, 0.45, 0.0, 0.9, 0.7),
    "d": (0.22, 0.45, 0.0, 0.9, 0.7),
    "ɾ": (0.28, 0.40, 0.0, 0.8, 0.7),
    "n": (0.24, 0.40, 0.0, 0.8, 0.8),
    "l": (0.36, 0.35, 0.0, 0.7, 1.0),
    "ɫ": (0.36, 0.25, 0.1, 0.6, 0.9),
    "ɹ": (0.28, 0.05, 0.6, 0.5, 0.4),
    "r": (0.30, 0.15, 0.4, 0.5, 0.5),
    "j": (0.26, 0.80, 0.0, 0.8, 0.5),
    "w": (0.12, 0.00, 1.00, 0.0, 0.1),
    "ʍ": (0.12, 0.00, 1.00, 0.0, 0.1),
    "k": (0.32, 0.35, 0.0, 0.6, 0.2),
    "ɡ": (0.32, 0.35, 0.0, 0.6, 0.2),
    "g": (0.32, 0.35, 0.0, 0.6, 0.2),
    "ŋ": (0.32, 0.35, 0.0, 0.6, 0.2),
    "x": (0.34, 0.30, 0.0, 0.6, 0.2),
    "h": (0.45, 0.30, 0.0, 0.4, 0.2),
    "ʔ": (0.30, 0.25, 0.0, 0.4, 0.2),
    # What English lacks.
    "ɨ": (0.32, 0.55, 0.0, 0.6, 0.35),
    "ɯ": (0.30, 0.55, 0.0, 0.5, 0.25),
    "ɤ": (0.50, 0.25, 0.0, 0.5, 0.2),
    "ʏ": (0.30, 0.10, 0.75, 0.3, 0.30),
    "β": (0.12, 0.20, 0.1, 0.1, 0.0),
    "ʋ": (0.16, 0.35, 0.1, 0.8, 0.0),
    "ɱ": (0.10, 0.40, 0.0, 1.0, 0.0),
    "ɲ": (0.26, 0.60, 0.0, 0.8, 0.7),
    "ʎ": (0.32, 0.55, 0.0, 0.8, 0.8),
    "ɕ": (0.18, 0.50, 0.2, 1.0, 0.1),
    "ʑ": (0.18, 0.50, 0.2, 1.0, 0.1),
    "ʂ": (0.20, 0.25, 0.45, 0.9, 0.1),
    "ʐ": (0.20, 0.25, 0.45, 0.9, 0.1),
    "ç": (0.26, 0.65, 0.0, 0.9, 0.4),
    "ʝ": (0.28, 0.65, 0.0, 0.8, 0.5),
    "c": (0.28, 0.50, 0.0, 0.7, 0.4),
    "ɟ": (0.28, 0.50, 0.0, 0.7, 0.4),
    "ʈ": (0.24, 0.40, 0.0, 0.8, 0.7),
    "ɖ": (0.24, 0.40, 0.0, 0.8, 0.7),
    "ɣ": (0.36, 0.30, 0.0, 0.5, 0.2),
    "ʁ": (0.40, 0.25, 0.0, 0.5, 0.2),
    "ʀ": (0.40, 0.25, 0.0, 0.5, 0.2),
    "q": (0.34, 0.25, 0.0, 0.5, 0.15),
    "ɦ": (0.45, 0.30, 0.0, 0.4, 0.2),
}
_CLOSING = {"p": 0.045, "b": 0.030, "m": 0.0}  # seconds from the lips' closure to the phoneme event
_NARROWING = frozenset("fvwʍβʋɱ")
_MARKS = frozenset("ːˑˈˌ̩̃ʲʰ̪̚ˠ_:;|-'")


def has_shape(symbol: str) -> bool:
    """Whether a letter of IPA has a mouth of its own."""
    return symbol in _TARGETS


def _clean(symbol: str) -> str:
    return "".join(character for character in symbol if character in _TARGETS)


def mouth_track(phonemes: Sequence[Phoneme], frames: int) -> Floats:
    """Mouth shapes of timed phonemes.

    Args:
        phonemes: in time order; symbols without a target (and pauses) are a closed mouth.
        frames: number of frames at 25 Hz.

    Returns:
        float32 [frames, 5]: open, wide, round, teeth, tongue in 0..1, sampled at the frames' centres.
    """
    radius = int(4 * _SMOOTHING * _FINE_RATE)
    count = max(frames * _FINE_RATE // FRAME_RATE, 2 * radius) + 1
    time = np.arange(count) / _FINE_RATE
    track = np.zeros((count, 5))
    closed = np.zeros(count)
    narrow = np.zeros(count)
    for phoneme in phonemes:
        letters = phoneme.symbol
        if not letters:
            continue
        step = (phoneme.end - phoneme.start) / len(letters)
        for index, letter in enumerate(letters):
            start = phoneme.start + index * step - _LEAD
            end = start + step
            track[(time >= start) & (time < end)] = _TARGETS[letter]
            if letter in _CLOSING:
                # espeak-ng places a stop's event at its burst: the lips closed before. At least a frame's
                # time, so that no closure falls between two frames.
                first = start - _CLOSING[letter]
                closed = np.maximum(closed, _plateau(time, first, max(min(end, start + 0.06), first + 0.042), 0.075))
            elif letter in _NARROWING:
                narrow = np.maximum(narrow, _plateau(time, start, max(end, start + 0.04), 0.075))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (_SMOOTHING * _FINE_RATE)) ** 2)
    kernel /= kernel.sum()
    smooth = np.stack([np.convolve(track[:, column], kernel, "same") for column in range(5)], -1)
    # Smoothing lowers the peaks of short vowels; speakers aim further to make up for it.
    smooth[:, 0] = np.minimum(1.3 * smooth[:, 0], 1 - 0.86 * narrow) * (1 - closed)
    smooth[:, 3] *= 1 - closed
    # Under 3 % the lips touch: without this the tails of the smoothing would leave a slit in silence.
    smooth[:, 0] = np.maximum(smooth[:, 0] - 0.03, 0) / 0.97
    centres = (np.arange(frames) + 0.5) / FRAME_RATE
    columns = [np.interp(centres, time, smooth[:, column]) for column in range(5)]
    return np.asarray(np.clip(np.stack(columns, -1), 0, 1), np.float32)


def _plateau(time: npt.NDArray[np.float64], start: float, end: float, edge: float) -> npt.NDArray[np.float64]:
    """1 from start to end with raised-cosine edges outside."""
    outside = np.maximum(np.maximum(start - time, time - end), 0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.minimum(outside / edge, 1)))
