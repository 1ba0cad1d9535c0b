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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra

with program_needs_extra("train", __name__):
    import cv2

    from .dataset import CLOSING, head_motion
    from .drawing import Floats
    from .folder import add_arguments, new_arrays, new_folder
    from .identity import Identity
    from .renderer import MOTION_COLUMNS, MOUTH_COLUMNS, eye_box, flow_between, mouth_box, neutral_motion, render
    from .sentences import SPLITS, sample_text, sample_voice
    from .speech import synthesize
    from .view import View


FRAMES = 24
SIZE = 256
FLOW_SIDE = 32
_BLINK = MOTION_COLUMNS.index("blink")


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


def make_clip(seed: int, split: str, index: int, frames: int = FRAMES) -> Clip:
    """Everything about one clip but its pictures; three of four speak, the others move their mouths at random."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 2])
    identity, view = Identity.sample(rng), View.sample(rng)
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


def build(out: Path, clips: int, seed: int, split: str, processes: int = 1) -> None:
    """Write `clips` clips into the folder `out`, which appears only when it is complete.

    Raises:
        OutputError: the folder exists.
    """
    with new_folder(out) as part:
        new_arrays(part, arrays(clips))
        tasks = [(part, seed, split, index) for index in range(clips)]
        with multiprocessing.get_context("spawn").Pool(processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for done, _ in enumerate(pool.imap_unordered(write_clip, tasks, chunksize=4), 1):
                if done % 100 == 0:
                    print(f"clips {done}/{clips}", file=sys.stderr, flush=True)
        description = {"clips": clips, "seed": seed, "split": split, "frames": FRAMES, "size": SIZE}
        (part / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def write_clip(task: tuple[Path, int, str, int]) -> int:
    """Draw one clip, (folder, seed, split, index), into the arrays of a folder; its index."""
    folder, seed, split, index = task
    clip = make_clip(seed, split, index)
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
    options = parser.parse_args(arguments)
    build(options.out, options.clips, options.seed, options.split, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
