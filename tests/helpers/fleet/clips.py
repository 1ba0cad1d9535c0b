"""Short clips to render, from sounds that are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rap_edge.runtime.outputs.wave_file import write_wave

RATE = 16_000


def write_sound(path: Path, seconds: float, seed: int = 0) -> Path:
    """Bursts of noise."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    loudness = np.abs(np.sin(np.arange(count) / 2000))
    write_wave(path, (3000 * loudness * rng.standard_normal(count)).astype(np.int16), RATE)
    return path


def write_clips(folder: Path, count: int, seconds: tuple[float, float] = (0.2, 0.6)) -> Path:
    """Sounds, and the file of jobs that makes videos of them."""
    rng = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        write_sound(folder / f"{number:03d}.wav", rng.uniform(*seconds), seed=number)
    return write_jobs(folder, *({"audio": f"{number:03d}.wav", "seed": number} for number in range(count)))


def write_jobs(folder: Path, *lines: object) -> Path:
    """A file of jobs."""
    path = folder / "clips.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path
