"""Speech without pictures: many more sentences and voices than the rendered clips have, for the audio encoder.

Half of the utterances are sentences of the training split, half are strings of invented words, which cover sound
combinations that a small vocabulary lacks. All voices belong to the training split.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np

from .sentences import sample_text, sample_voice
from .speech import FRAME_SAMPLES, synthesize

FRAMES = 176
_ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "y",
    "z",
    "bl",
    "br",
    "ch",
    "cl",
    "cr",
    "dr",
    "fl",
    "fr",
    "gl",
    "gr",
    "kn",
    "pl",
    "pr",
    "sh",
    "sl",
    "sm",
    "sn",
    "sp",
    "st",
    "str",
    "sw",
    "th",
    "tr",
    "wh",
]
_NUCLEI = ["a", "e", "i", "o", "u", "ai", "ee", "ea", "oa", "oo", "ou", "ow", "oy", "ar", "er", "or", "ay", "igh", "au"]
_CODAS = [
    "",
    "b",
    "ck",
    "d",
    "f",
    "g",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "x",
    "ng",
    "nd",
    "nt",
    "mp",
    "st",
    "sh",
    "th",
    "ll",
    "ss",
    "ft",
    "lk",
    "rm",
]


def invented_text(rng: np.random.Generator) -> str:
    """Six to fourteen invented words of one to three syllables."""
    words = []
    for _ in range(int(rng.integers(6, 15))):
        syllables = [
            _ONSETS[int(rng.integers(len(_ONSETS)))]
            + _NUCLEI[int(rng.integers(len(_NUCLEI)))]
            + _CODAS[int(rng.integers(len(_CODAS)))]
            for _ in range(1 + int(rng.integers(3)))
        ]
        words.append("".join(syllables))
    return " ".join(words) + "."


def _utterance(index: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([77, index])
    text = sample_text(rng, "train") if index % 2 else invented_text(rng)
    spoken = synthesize(text, sample_voice(rng, "train"))
    waveform = np.zeros(FRAMES * FRAME_SAMPLES, np.float16)
    mouth = np.zeros((FRAMES, spoken.mouth.shape[1]), np.float32)
    quiet = int(rng.integers(0, 12))
    frames = min(FRAMES - quiet, len(spoken.mouth))
    first = quiet * FRAME_SAMPLES
    sound = spoken.waveform[: frames * FRAME_SAMPLES]
    loudness = float(np.sqrt(np.mean(sound**2))) + 1e-6
    waveform[first : first + len(sound)] = sound * (rng.uniform(0.03, 0.14) / loudness)
    mouth[quiet : quiet + frames] = spoken.mouth[:frames]
    return waveform, mouth


def build(out: Path, count: int, processes: int) -> None:
    """Write `waveform.npy` fp16 [count, samples] and `mouth.npy` fp32 [count, FRAMES, 5] to `out`, unless there."""
    if (out / "mouth.npy").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = []
        for result in pool.imap(_utterance, range(count), chunksize=8):
            results.append(result)
            if len(results) % 100 == 0:
                print(f"utterances {len(results)}/{count}", flush=True)
    waveforms, mouths = zip(*results, strict=True)
    np.save(out / "waveform.npy", np.stack(waveforms))
    np.save(out / "mouth.npy", np.stack(mouths))
