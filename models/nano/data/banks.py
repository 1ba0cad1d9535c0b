"""Long sound tracks with the mouth that speaks them: what the audio encoder hears and the DiT moves to.

A track has sentences with pauses in between, now and then no voice at all. Half of the sentences are of the training
split or of invented words, which cover what a small vocabulary lacks. Every track is a function of (synthesizer,
split, seed, index), but for a sample or so of espeak-ng's timing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra

with program_needs_extra("train", __name__):
    from .effects import loudness
    from .folder import add_arguments, new_folder
    from .sentences import SPLITS, invented_text, sample_text, sample_voice
    from .speech import FRAME_SAMPLES, SAMPLE_RATE, Floats, Utterance, Voice, synthesize
    from .voices import FESTIVAL_VOICES, FLITE_VOICES, festival, flite, utterance


FRAMES = 300
_MOUTH = 5
_LANGUAGES = ("de", "fr", "es", "it", "pt-br", "pl", "nl", "sv", "fi", "ro", "tr", "cs")
_ITALIAN_SYLLABLES = ("ba", "ca", "da", "fi", "gio", "le", "ma", "mo", "no", "pa", "pe", "ro", "sa", "ti", "vo", "zu")

Speaker = Callable[[np.random.Generator, str], Utterance]


@dataclass(frozen=True)
class Track:
    """A sound track and its mouth.

    Attributes:
        waveform: float32 [frames * 640] in -1..1, without noise.
        mouth: float32 [frames, 5].
    """

    waveform: Floats
    mouth: Floats


def semitones(rng: np.random.Generator, split: str) -> float:
    """A factor of the pitch, in training half of the time up to 7.5 semitones away from 1."""
    return float(2 ** (rng.uniform(-7.5, 7.5) / 12)) if split == "train" and rng.random() < 0.5 else 1.0


def espeak_speaker(rng: np.random.Generator, split: str) -> Utterance:
    """espeak-ng, in training a quarter of the time in another language, at any pace and pitch."""
    if split != "train":
        return synthesize(sample_text(rng, split), sample_voice(rng, split))
    voice = sample_voice(rng, split)
    text = sample_text(rng, split) if rng.random() < 0.5 else invented_text(rng)
    name = voice.name
    if rng.random() < 0.25:
        _, _, variant = name.partition("+")
        name = _LANGUAGES[int(rng.integers(len(_LANGUAGES)))] + (f"+{variant}" if variant else "")
        text = invented_text(rng)
    pitch = semitones(rng, split)
    rate = float(np.clip(rng.uniform(105, 250) / pitch, 80, 400))
    said = synthesize(text, Voice(name, round(rate), int(rng.integers(0, 100)), int(rng.integers(10, 100))))
    return utterance(said.waveform, SAMPLE_RATE, said.phonemes, pitch)


def festival_speaker(rng: np.random.Generator, split: str) -> Utterance:
    """Festival in English or Italian."""
    voice = FESTIVAL_VOICES[int(rng.integers(len(FESTIVAL_VOICES)))]
    text = sample_text(rng, split) if rng.random() < 0.5 else invented_text(rng)
    if voice in ("lp_diphone", "pc_diphone"):
        words = rng.choice(_ITALIAN_SYLLABLES, (int(rng.integers(5, 11)), 3))
        text = " ".join("".join(word[: int(rng.integers(1, 4))]) for word in words) + "."
    return festival(text, voice, float(rng.uniform(0.75, 1.35)), semitones(rng, split))


def flite_speaker(rng: np.random.Generator, split: str) -> Utterance:
    """Flite, as its speakers speak."""
    return flite(sample_text(rng, split), FLITE_VOICES[int(rng.integers(len(FLITE_VOICES)))])


SPEAKERS: dict[str, Speaker] = {"espeak": espeak_speaker, "festival": festival_speaker, "flite": flite_speaker}


def make_track(speak: Speaker, rng: np.random.Generator, split: str, frames: int = FRAMES) -> Track:
    """Sentences after one another, with pauses of up to three seconds; one track in twelve is silent."""
    waveform = np.zeros(frames * FRAME_SAMPLES, np.float32)
    mouth = np.zeros((frames, _MOUTH), np.float32)
    filled = int(rng.integers(0, 40))
    if rng.random() < 1 / 12:
        filled = frames
    level = float(rng.uniform(0.02, 0.16))
    while filled < frames - 12:
        said = speak(rng, split)
        length = min(len(said.mouth), frames - filled)
        sound = said.waveform[: length * FRAME_SAMPLES]
        first = filled * FRAME_SAMPLES
        waveform[first : first + len(sound)] = sound * (level * float(rng.uniform(0.8, 1.25)) / loudness(sound))
        mouth[filled : filled + length] = said.mouth[:length]
        filled += length + (int(rng.integers(0, 12)) if rng.random() < 0.6 else int(rng.integers(12, 80)))
    return Track(np.clip(waveform, -1, 1), mouth)


def build(out: Path, speak: Speaker | str, tracks: int, seed: int, split: str, processes: int = 1) -> None:
    """Write waveform.npy float16 [N, 640 * 300] and mouth.npy float16 [N, 300, 5] into the folder `out`.

    Args:
        out: appears only when it is complete.
        speak: a key of `SPEAKERS`, or anything that speaks, in one process.

    Raises:
        OutputError: the folder exists.
        SpeechError: the synthesizer does not work.
    """
    with new_folder(out) as part:
        tasks = [(speak, seed, split, index) for index in range(tracks)]
        waveforms = np.zeros((tracks, FRAMES * FRAME_SAMPLES), np.float16)
        mouths = np.zeros((tracks, FRAMES, _MOUTH), np.float16)
        if isinstance(speak, str):
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                _gather(pool.imap(_track, tasks, chunksize=4), waveforms, mouths)
        else:
            _gather(map(_track, tasks), waveforms, mouths)
        np.save(part / "waveform.npy", waveforms)
        np.save(part / "mouth.npy", mouths)


def _gather(made: Iterable[Track], waveforms: np.ndarray, mouths: np.ndarray) -> None:
    for index, track in enumerate(made):
        waveforms[index], mouths[index] = track.waveform, track.mouth
        if (index + 1) % 50 == 0:
            print(f"tracks {index + 1}/{len(waveforms)}", file=sys.stderr, flush=True)


def _track(task: tuple[Speaker | str, int, str, int]) -> Track:
    speak, seed, split, index = task
    key = list(SPEAKERS).index(speak) if isinstance(speak, str) else len(SPEAKERS)
    rng = np.random.default_rng([seed, key, SPLITS.index(split), index])
    return make_track(SPEAKERS[speak] if isinstance(speak, str) else speak, rng, split)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `python -m rap_edge.models.nano.data.banks --out DIR --synthesizer festival --tracks N`."""
    return exit_status("banks", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description="Speak long sound tracks with their mouths.")
    add_arguments(parser, "tracks")
    parser.add_argument("--synthesizer", choices=tuple(SPEAKERS), default="espeak")
    options = parser.parse_args(arguments)
    build(options.out, options.synthesizer, options.tracks, options.seed, options.split, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
