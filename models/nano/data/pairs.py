"""Builds the pictures that the motion decoder learns from: portraits and short clips of the same face in motion.

Every clip is a function of (seed, split, index), has a face of its own, and is framed and lit in its own way. The
splits share no face.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra

with program_needs_extra("train", __name__):
    import cv2

    from .drawing import Floats
    from .folder import add_arguments, new_arrays, new_folder
    from .identity import Identity
    from .renderer import MOTION_COLUMNS, MOUTH_COLUMNS, eye_box, flow_between, mouth_box, neutral_motion, render
    from .sentences import SPLITS, sample_text, sample_voice
    from .speech import FRAME_RATE, synthesize
    from .view import View


FRAMES = 24
SIZE = 256
FLOW_SIDE = 32
_BLINK = MOTION_COLUMNS.index("blink")
# How far the lids are closed in the frames of a blink.
CLOSING = (0.45, 0.95, 1.0, 0.8, 0.4, 0.1)


@dataclass(frozen=True)
class Clip:
    """One clip without its pictures.

    Attributes:
        identity: who.
        view: framing and light.
        portrait: float32 [13], the pose of the portrait: mouth closed, eyes open.
        motion: float32 [FRAMES, 13], columns `renderer.MOTION_COLUMNS`.
    """

    identity: Identity
    view: View
    portrait: Floats
    motion: Floats


def sitter(rng: np.random.Generator) -> tuple[Identity, View]:
    """Who is drawn in a clip, and how framed and lit: the first that its generator gives."""
    return Identity.sample(rng), View.sample(rng)


def make_clip(seed: int, split: str, index: int, frames: int = FRAMES) -> Clip:
    """Everything about one clip but its pictures; three of four speak, the others move their mouths at random."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 2])
    identity, view = sitter(rng)
    portrait = neutral_motion()
    portrait[MOUTH_COLUMNS:_BLINK] = np.clip(rng.normal(0, 0.3, 5), -1, 1)
    portrait[_BLINK + 1 :] = np.clip(rng.normal(0, 0.25, 2), -1, 1)
    motion = np.zeros((frames, len(MOTION_COLUMNS)), np.float32)
    motion[:, MOUTH_COLUMNS:] = head_motion(rng, frames)
    if rng.random() < 0.6:
        first = int(rng.integers(0, frames - len(CLOSING) + 1))
        motion[first : first + len(CLOSING), _BLINK] = CLOSING
    motion[:, :MOUTH_COLUMNS] = spoken(rng, split, frames) if rng.random() < 0.75 else mouthed(rng, frames)
    return Clip(identity, view, portrait, motion)


def make_still_clip(seed: int, split: str, index: int, frames: int = FRAMES) -> Clip:
    """A clip whose head stays as in the portrait, while its eyes look around and blink; half of the mouths move."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 3])
    clip = make_clip(seed, split, index, frames)
    motion = np.tile(clip.portrait, (frames, 1))
    for start in range(0, frames, 4):
        motion[start : start + 4, _BLINK + 1 :] = np.clip(rng.normal(0, 0.5, 2), -1, 1)
    if rng.random() < 0.4:
        first = int(rng.integers(0, frames - len(CLOSING) + 1))
        motion[first : first + len(CLOSING), _BLINK] = CLOSING
    if rng.random() < 0.5:
        motion[:, :MOUTH_COLUMNS] = mouthed(rng, frames)
    return replace(clip, motion=motion)


MAKERS = {"whole": make_clip, "still": make_still_clip}
"""What moves in the clips of a set: everything, or eyes and mouth in a head that keeps still."""


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


def spoken(rng: np.random.Generator, split: str, frames: int) -> Floats:
    """The mouth of a piece of an utterance, float32 [frames, 5]."""
    mouth = synthesize(sample_text(rng, split), sample_voice(rng, split)).mouth
    start = int(rng.integers(-4, max(len(mouth) - frames + 4, -3)))
    padded = np.pad(mouth, ((8, frames + 8), (0, 0)))
    return padded[8 + start : 8 + start + frames]


def mouthed(rng: np.random.Generator, frames: int) -> Floats:
    """Random shapes of the mouth that change every few frames, float32 [frames, 5]."""
    knots = np.arange(0, frames + 6, 5)
    shapes = rng.uniform(0, 1, (len(knots), MOUTH_COLUMNS))
    shapes[:, 0] *= rng.random(len(knots)) < 0.8
    return np.stack([np.interp(np.arange(frames), knots, track) for track in shapes.T], -1).astype(np.float32)


def arrays(clips: int) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
    """Type and shape of every array of a set of `clips` clips."""
    return {
        "portrait": (np.uint8, (clips, SIZE, SIZE, 3)),
        "video": (np.uint8, (clips, FRAMES, SIZE, SIZE, 3)),
        "pose": (np.float32, (clips, len(MOTION_COLUMNS))),
        "motion": (np.float32, (clips, FRAMES, len(MOTION_COLUMNS))),
        "mouth_box": (np.int16, (clips, FRAMES, 4)),
        "eye_box": (np.int16, (clips, FRAMES, 4)),
        "flow": (np.float16, (clips, FRAMES, 2, FLOW_SIDE, FLOW_SIDE)),
    }


def build(out: Path, clips: int, seed: int, split: str, moving: str = "whole", processes: int = 1) -> None:
    """Write `clips` clips of `MAKERS[moving]` into the folder `out`, which appears only when it is complete.

    Raises:
        OutputError: the folder exists.
    """
    with new_folder(out) as part:
        new_arrays(part, arrays(clips))
        tasks = [(part, seed, split, index, moving) for index in range(clips)]
        with multiprocessing.get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for done, _ in enumerate(pool.imap_unordered(write_clip, tasks, chunksize=4), 1):
                if done % 100 == 0:
                    print(f"clips {done}/{clips}", file=sys.stderr, flush=True)
        description = {
            "clips": clips, "seed": seed, "split": split, "moving": moving, "frames": FRAMES, "size": SIZE,
        }  # fmt: skip
        (part / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def write_clip(task: tuple[Path, int, str, int, str]) -> int:
    """Draw one clip, (folder, seed, split, index, moving), into the arrays of a folder; its index."""
    folder, seed, split, index, moving = task
    clip = MAKERS[moving](seed, split, index)
    whole: dict[str, npt.NDArray[np.generic]] = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in arrays(1)
    }
    whole["portrait"][index] = render(clip.identity, clip.portrait, SIZE, clip.view)
    whole["pose"][index], whole["motion"][index] = clip.portrait, clip.motion
    for frame, row in enumerate(clip.motion):
        whole["video"][index, frame] = render(clip.identity, row, SIZE, clip.view)
        whole["mouth_box"][index, frame] = mouth_box(clip.identity, row, SIZE, clip.view)
        whole["eye_box"][index, frame] = eye_box(clip.identity, row, SIZE, clip.view)
        whole["flow"][index, frame] = flow_between(clip.portrait, row, FLOW_SIDE, clip.view).transpose(2, 0, 1)
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `python -m rap_edge.models.nano.data.pairs --out DIR --clips N --seed S --split train`."""
    return exit_status("pairs", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description="Draw the training or held-out clips of the motion decoder.")
    add_arguments(parser, "clips")
    parser.add_argument("--moving", choices=tuple(MAKERS), default="whole", help="all of it, or eyes and mouth alone")
    options = parser.parse_args(arguments)
    build(options.out, options.clips, options.seed, options.split, options.moving, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
