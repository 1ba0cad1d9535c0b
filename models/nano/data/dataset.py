"""Builds nano's clips: rendered talking portraits with their speech, as memory-mappable .npy files.

Every clip is a function of (seed, split, index), so the result does not depend on the number of processes but for a
sample or so of espeak-ng's timing.
Identities are fresh for every clip; the two splits share no identity, sentence or voice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra

from ..errors import DatasetError

with program_needs_extra("train", __name__):
    import cv2

    from .folder import add_arguments, new_arrays, new_folder
    from .identity import Identity
    from .renderer import MOTION_COLUMNS, MOUTH_COLUMNS, mouth_box, render
    from .sentences import SPLITS, sample_text, sample_voice
    from .speech import FRAME_RATE, FRAME_SAMPLES, SAMPLE_RATE, synthesize


Floats = npt.NDArray[np.float32]

FRAMES = 41
PAST_FRAMES = 50
SIZE = 256
SILENT_SHARE = 0.12
# How far the lids are closed in the frames of a blink.
CLOSING = (0.45, 0.95, 1.0, 0.8, 0.4, 0.1)


@dataclass(frozen=True)
class Clip:
    """One clip without its pictures.

    Attributes:
        identity: who.
        motion: float32 [FRAMES, 13], columns `renderer.MOTION_COLUMNS`.
        waveform: float32 [FRAME_SAMPLES * (FRAMES + PAST_FRAMES)] in -1..1; frame 0 starts at sample 640 * 50.
    """

    identity: Identity
    motion: Floats
    waveform: Floats


def make_clip(seed: int, split: str, index: int, frames: int = FRAMES) -> Clip:
    """Everything about one clip but its pictures.

    Args:
        seed: of the whole set.
        split: `train` or `held-out`.
        index: of the clip in the set.
        frames: length of the clip; `FRAMES` in the training set.

    Raises:
        DatasetError: the split does not exist.
        SpeechError: espeak-ng does not work.
    """
    if split not in SPLITS:
        raise DatasetError(f"There is no split '{split}'; use one of {', '.join(SPLITS)}.")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    identity = Identity.sample(rng)
    motion = np.zeros((frames, len(MOTION_COLUMNS)), np.float32)
    motion[:, MOUTH_COLUMNS:] = head_motion(rng, frames)
    waveform = np.zeros(FRAME_SAMPLES * (frames + PAST_FRAMES), np.float32)
    if rng.random() >= SILENT_SHARE:
        speech, mouth = _speech_window(rng, split, frames)
        waveform += speech * _level(speech, float(rng.uniform(0.02, 0.16)))
        motion[:, :MOUTH_COLUMNS] = mouth
        if rng.random() < 0.35:
            waveform += noise(rng, len(waveform)) * 10 ** float(rng.uniform(-3.2, -2.0))
    elif rng.random() < 0.75:
        waveform += noise(rng, len(waveform)) * 10 ** float(rng.uniform(-3.2, -1.4))
    return Clip(identity, motion, np.clip(waveform, -1, 1).astype(np.float32))


def head_motion(rng: np.random.Generator, frames: int) -> Floats:
    """Smooth head motion, blinks of about 6 frames and gaze shifts.

    Returns:
        float32 [frames, 8]: yaw, pitch, roll, shift_x, shift_y, blink, gaze_x, gaze_y.
    """
    time_axis = np.arange(frames) / FRAME_RATE
    motion = np.zeros((frames, 8))
    for column in range(5):
        motion[:, column] = rng.normal(0, 0.25)
        for frequency in (0.12, 0.3, 0.65):
            amplitude = rng.normal(0, 0.16 / (1 + frequency))
            motion[:, column] += amplitude * np.sin(
                2 * np.pi * (frequency * time_axis * rng.uniform(0.7, 1.3) + rng.random())
            )
    start = int(rng.integers(-6, 70))
    while start < frames:
        first, last = max(start, 0), min(start + len(CLOSING), frames)
        if last > first:
            motion[first:last, 5] = CLOSING[first - start : last - start]
        start += int(rng.integers(45, 120))
    start = 0
    gaze = rng.normal(0, 0.25, 2)
    while start < frames:
        until = min(frames, start + int(rng.integers(18, 70)))
        motion[start:until, 6:8] = gaze
        if until < frames:
            gaze = rng.normal(0, 0.3, 2)
        start = until
    # A gaze shift takes about three frames.
    kernel = np.array([0.25, 0.5, 0.25])
    for column in (6, 7):
        motion[:, column] = np.convolve(np.pad(motion[:, column], 1, "edge"), kernel, "valid")
    return np.asarray(np.clip(motion, -1, 1), np.float32)


def noise(rng: np.random.Generator, samples: int) -> Floats:
    """White, pink or brown noise or a hum, float32 [samples], with an RMS of 1."""
    kind = int(rng.integers(4))
    if kind == 3:
        base = float(rng.uniform(45, 130))
        t = np.arange(samples) / SAMPLE_RATE
        hum = sum(rng.random() * np.sin(2 * np.pi * (base * n * t + rng.random())) for n in range(1, 6))
        sound = np.asarray(hum + 0.05 * rng.normal(size=samples))
    else:
        spectrum = np.fft.rfft(rng.normal(size=samples))
        spectrum[1:] /= np.arange(1, len(spectrum)) ** (0.5 * kind)
        spectrum[: int(30 * samples / SAMPLE_RATE)] = 0
        sound = np.fft.irfft(spectrum, samples)
    return np.asarray(sound / np.sqrt(np.mean(sound**2)), np.float32)


def build(out: Path, clips: int, seed: int, split: str, processes: int = 1) -> None:
    """Write `clips` clips into the folder `out`, which appears only when it is complete.

    The folder holds video.npy uint8 [N, 41, 256, 256, 3] (RGB), motion.npy float32 [N, 41, 13],
    mouth_box.npy int16 [N, 41, 4] (x0, y0, x1, y1), waveform.npy float16 [N, 640 * 91] and dataset.json.

    Raises:
        OutputError: the folder exists.
        DatasetError: the number of clips is not positive or the split does not exist.
    """
    if clips <= 0 or split not in SPLITS:
        raise DatasetError(
            f"Cannot build {clips} clips of split '{split}'; use a positive number and one of {', '.join(SPLITS)}."
        )
    with new_folder(out) as part:
        new_arrays(part, _arrays(clips))
        tasks = [(part, seed, split, index) for index in range(clips)]
        started = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for done, _ in enumerate(pool.imap_unordered(_write_clip, tasks, chunksize=4), 1):
                _progress(done, clips, time.monotonic() - started)
        description = {
            "clips": clips,
            "seed": seed,
            "split": split,
            "frames": FRAMES,
            "size": SIZE,
            "columns": MOTION_COLUMNS,
        }
        (part / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")


def _arrays(clips: int) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    return {
        "video": (np.uint8, (clips, FRAMES, SIZE, SIZE, 3)),
        "motion": (np.float32, (clips, FRAMES, len(MOTION_COLUMNS))),
        "mouth_box": (np.int16, (clips, FRAMES, 4)),
        "waveform": (np.float16, (clips, FRAME_SAMPLES * (FRAMES + PAST_FRAMES))),
    }


def _write_clip(task: tuple[Path, int, str, int]) -> int:
    folder, seed, split, index = task
    clip = make_clip(seed, split, index)
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("video", "motion", "mouth_box", "waveform")
    }
    for frame, row in enumerate(clip.motion):
        arrays["video"][index, frame] = render(clip.identity, row, SIZE)
        arrays["mouth_box"][index, frame] = mouth_box(clip.identity, row, SIZE)
    arrays["motion"][index] = clip.motion
    arrays["waveform"][index] = clip.waveform.astype(np.float16)
    return index


def _speech_window(rng: np.random.Generator, split: str, frames: int) -> tuple[Floats, Floats]:
    """Audio [640 * (50 + frames)] and mouth [frames, 5] from somewhere in, or around the ends of, an utterance."""
    utterance = synthesize(sample_text(rng, split), sample_voice(rng, split))
    spoken = len(utterance.mouth)
    start = int(rng.integers(-12, max(spoken - frames + 12, -11)))
    before, after = PAST_FRAMES + 12, frames + 24
    mouth = np.pad(utterance.mouth, ((before, after), (0, 0)))
    audio = np.pad(utterance.waveform, (before * FRAME_SAMPLES, after * FRAME_SAMPLES))
    first = start + before
    end = first + frames
    return audio[(first - PAST_FRAMES) * FRAME_SAMPLES : end * FRAME_SAMPLES], mouth[first:end]


def _level(speech: Floats, target: float) -> float:
    """Gain that brings the speech's RMS, pauses left out, to the target."""
    loud = np.abs(speech) > 1e-3
    return target / float(np.sqrt(np.mean(speech[loud] ** 2))) if loud.any() else 1.0


def _progress(done: int, total: int, seconds: float) -> None:
    if done % max(1, total // 200) and done != total:
        return
    bar = "#" * (30 * done // total)
    remaining = seconds / done * (total - done)
    end = "\n" if done == total else ""
    print(f"\r[{bar:<30}] {done}/{total} clips, {remaining:4.0f} s left", end=end, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `python -m rap_edge.models.nano.data.dataset --out DIR --clips N --seed S --split train`."""
    return exit_status("dataset", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description="Render nano's training or held-out clips.")
    add_arguments(parser, "clips")
    options = parser.parse_args(arguments)
    build(options.out, options.clips, options.seed, options.split, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
