"""What a calibration is recorded from and judged by: portraits and sounds that training never had."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rap_edge.export.parity.check_inputs import drawn_portrait, read_mono
from rap_edge.runtime.errors import AudioError, CalibrationError
from rap_edge.runtime.spec import ModelSpec

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Gauge = Callable[[Bytes], Floats]

AUDIO_SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".webm", ".mkv"))
SILENCE_LEVEL = 0.005
_SEED, _GATE_SEED = 31_000, 32_000


@dataclass(frozen=True)
class Sound:
    """Mono audio at the spec's rate, float32 [samples] in -1..1, and what it is: "speech", "silence" or a file."""

    name: str
    waveform: Floats


@dataclass(frozen=True)
class Talk:
    """The clip that a calibration is judged by.

    Attributes:
        portrait: uint8 [size, size, 3].
        waveform: float32 [samples].
        gauge: reads the mouth's opening off frames, float32 [T]; None where no mouth can be measured.
        opening: the true opening per frame, float32 [T]; None where it is not known.
        origin: where it came from, for the manifest.
    """

    portrait: Bytes
    waveform: Floats
    gauge: Gauge | None
    opening: Floats | None
    origin: str


@dataclass(frozen=True)
class Material:
    """Portraits and sounds of the recording, and the clips of the gates.

    Attributes:
        portraits: uint8 [size, size, 3].
        sounds: every portrait hears every one of them.
        short: a clip for the search.
        long: the clip of the gates.
        origin: for the manifest.
    """

    portraits: tuple[Bytes, ...]
    sounds: tuple[Sound, ...]
    short: Talk
    long: Talk
    origin: str


@dataclass(frozen=True)
class Amounts:
    """How much of everything: portraits, voices, and seconds per recorded sound, search clip and gate clip."""

    portraits: int = 4
    voices: int = 2
    record_seconds: float = 2.88
    short_seconds: float = 5.76
    long_seconds: float = 60.0


def drawn_material(spec: ModelSpec, amounts: Amounts) -> Material:
    """Portraits by nano's renderer and held-out sentences by held-out voices of espeak-ng, with silence and noise.

    Raises:
        CalibrationError: the renderer or espeak-ng is not installed, or the model takes another rate than theirs.
    """
    try:
        from rap_edge.models.nano.data.effects import noise
        from rap_edge.models.nano.data.speech import FRAME_RATE, SAMPLE_RATE
        from rap_edge.models.nano.measure.held_out import speech_track
    except ImportError as error:
        raise CalibrationError(
            f"The calibration's portraits and voices need {error.name!r}; install rap-edge with its 'calibrate' extra."
        ) from None
    if (spec.sample_rate, spec.fps) != (SAMPLE_RATE, FRAME_RATE):
        raise CalibrationError(
            f"The shipped voices have {SAMPLE_RATE} Hz and {FRAME_RATE} frames per second, the model "
            f"{spec.sample_rate} and {spec.fps}; pass --audio."
        )
    frames = round(amounts.record_seconds * FRAME_RATE)
    sounds = [
        Sound(f"speech {index}", speech_track(np.random.default_rng([_SEED, index]), frames, frames)[0])
        for index in range(amounts.voices)
    ]
    samples = frames * SAMPLE_RATE // FRAME_RATE
    hiss = noise(np.random.default_rng(_SEED), samples).astype(np.float32) * np.float32(SILENCE_LEVEL)
    sounds += [Sound("silence", np.zeros(samples, np.float32)), Sound("silence with noise", hiss)]
    portraits = tuple(
        _measured_portrait(spec, np.random.default_rng([_SEED, 1, index]))[0] for index in range(amounts.portraits)
    )
    short, long = (
        _talk(spec, index, round(seconds * FRAME_RATE))
        for index, seconds in enumerate((amounts.short_seconds, amounts.long_seconds))
    )
    return Material(portraits, tuple(sounds), short, long, "held-out faces, sentences and voices of nano")


def file_material(spec: ModelSpec, path: str | Path, amounts: Amounts) -> Material:
    """Sounds from a file, or from every audio file of a folder, with silence; portraits are drawn.

    Raises:
        CalibrationError: there is no audio, or it cannot be read; names the file.
    """
    sounds = [Sound(file.name, _read(file, spec)) for file in _audio_files(Path(path))]
    everything = np.concatenate([sound.waveform for sound in sounds])
    recorded = round(amounts.record_seconds * spec.sample_rate)
    cut = [Sound(sound.name, np.resize(sound.waveform, recorded)) for sound in sounds[: max(1, amounts.voices)]]
    cut.append(Sound("silence", np.zeros(recorded, np.float32)))
    portraits, talk_portrait, gauge = _portraits(spec, amounts.portraits)
    short, long = (
        Talk(talk_portrait, np.resize(everything, round(seconds * spec.sample_rate)), gauge, None, str(path))
        for seconds in (amounts.short_seconds, amounts.long_seconds)
    )
    return Material(portraits, tuple(cut), short, long, f"audio {Path(path).name!r}")


def _talk(spec: ModelSpec, index: int, frames: int) -> Talk:
    from rap_edge.models.nano.measure.held_out import speech_track

    rng = np.random.default_rng([_GATE_SEED, index])
    portrait, gauge = _measured_portrait(spec, rng)
    waveform, mouth = speech_track(rng, frames, frames - spec.fps)
    return Talk(portrait, np.clip(waveform, -1, 1), gauge, mouth[:, 0], "held-out face, sentences and voices of nano")


def _measured_portrait(spec: ModelSpec, rng: np.random.Generator) -> tuple[Bytes, Gauge | None]:
    from rap_edge.models.nano.data.identity import Identity
    from rap_edge.models.nano.data.renderer import mouth_box, neutral_motion, render
    from rap_edge.models.nano.errors import MeasureError
    from rap_edge.models.nano.measure.mouth import MouthGauge

    identity = Identity.sample(rng)
    # People are drawn in squares, of which a frame of another form shows the middle.
    side = max(spec.image_size)
    top, left = (side - spec.height) // 2, (side - spec.width) // 2
    square = render(identity, neutral_motion(), side)
    portrait = np.ascontiguousarray(square[top : top + spec.height, left : left + spec.width])
    x0, y0, x1, y1 = mouth_box(identity, neutral_motion(), side)
    try:
        gauge = MouthGauge.calibrate(portrait, (x0 - left, y0 - top, x1 - left, y1 - top))
    except MeasureError:
        return portrait, None
    return portrait, gauge.opening


def _portraits(spec: ModelSpec, count: int) -> tuple[tuple[Bytes, ...], Bytes, Gauge | None]:
    try:
        drawn = tuple(_measured_portrait(spec, np.random.default_rng([_SEED, 1, index]))[0] for index in range(count))
        return drawn, *_measured_portrait(spec, np.random.default_rng([_GATE_SEED, 0]))
    except ImportError:
        plain = drawn_portrait(spec.image_size)
        return (plain,), plain, None


def _audio_files(path: Path) -> Sequence[Path]:
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise CalibrationError(f"{str(path)!r} does not exist; pass an audio file or a folder of audio files.")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file())
    if not files:
        raise CalibrationError(f"{str(path)!r} holds no audio file; pass a folder with wav, flac, ogg or mp3 files.")
    return files


def _read(file: Path, spec: ModelSpec) -> Floats:
    try:
        waveform = read_mono(file, spec.sample_rate)
    except AudioError as error:
        raise CalibrationError(f"The calibration audio cannot be used: {error}") from error
    if waveform.size < spec.chunk_samples:
        raise CalibrationError(
            f"{str(file)!r} has {waveform.size / spec.sample_rate:.2f} s of sound and one chunk takes "
            f"{spec.chunk_seconds:.2f} s; pass longer audio."
        )
    return waveform
