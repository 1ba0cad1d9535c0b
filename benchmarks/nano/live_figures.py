"""What nano's latency dial and its idle motion cost and give, through the torch-free runtime.

The dial: for every number of new latents per chunk, speed, latency, and the held-out figures of `evaluate`. Idle:
for several numbers of replays, a face that hears nothing for a while: mouth, blinks, movement and rendering time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.checks.bounds import Real, Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.engines.onnxruntime_engine import load_engines
from rap_edge.runtime.spec import ModelSpec

with program_needs_extra("train", __name__):
    from evaluate import figures

    from rap_edge.models.nano.data.dataset import noise
    from rap_edge.models.nano.data.identity import Identity
    from rap_edge.models.nano.data.speech import FRAME_RATE, FRAME_SAMPLES
    from rap_edge.models.nano.measure.blink import BlinkGauge, count_blinks
    from rap_edge.models.nano.measure.held_out import SEED, Subject
    from rap_edge.models.nano.measure.mouth import closedness


Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_REPLAYS = (0, 1, 2, 3)
_SETTLING_FRAMES = 48


class Stage:
    """Renders with one spec and keeps count of the time."""

    def __init__(self, bundle: Bundle, spec: ModelSpec) -> None:
        """Load the engines once for all portraits."""
        self.spec = spec
        self.seconds: list[float] = []
        self._engines = load_engines(bundle)
        self._precision = bundle.manifest.precision

    def talk(self, portrait: Bytes, waveform: Floats) -> Bytes:
        """The video of a portrait that hears `waveform`."""
        frames = []
        with Avatar(self.spec, self._engines, portrait, self._precision) as avatar, avatar.session(seed=0) as session:
            session.push(waveform)
            session.finish()
            chunks, started = session.chunks(), perf_counter()
            for chunk in chunks:
                self.seconds.append(perf_counter() - started)
                frames.append(chunk.frames)
                started = perf_counter()
        return np.concatenate(frames)[: len(waveform) // FRAME_SAMPLES]


def dial_figures(bundle: Bundle, subjects: int, seconds: float) -> list[dict[str, float]]:
    """One row per number of new latents, the model's own first."""
    rows = []
    for new_latents in range(bundle.manifest.spec.new_latents, 0, -1):
        stage = Stage(bundle, bundle.manifest.spec.with_new_latents(new_latents))
        spec = stage.spec
        values, _ = figures(stage.talk, spec, subjects, round(seconds * FRAME_RATE))
        median = float(np.median(stage.seconds))
        rows.append(
            {
                "new_latents": new_latents,
                "chunk_seconds": spec.chunk_seconds,
                "chunk_ms": 1e3 * median,
                "real_time_factor": median / spec.chunk_seconds,
                "latency_seconds": spec.chunk_seconds + median,
                "correlation": values["correlation"],
                "best_lag": values["best_lag"],
                "psnr_outside_mouth": values["psnr_outside_mouth"],
                "seam_ratio": values["seam_ratio"],
                "closed_in_pauses": values["closed_in_pauses"],
            }
        )
    return rows


def idle_figures(bundle: Bundle, subjects: int, seconds: float) -> list[dict[str, float]]:
    """One row per number of replays, from the faces' third second of silence on."""
    rows = []
    for replays in _REPLAYS:
        stage = Stage(bundle, dataclasses.replace(bundle.manifest.spec, idle_replays=replays))
        closed, blinks, moved = [], 0, []
        for index in range(1000, 1000 + subjects):
            subject = Subject.sample(index, round(seconds * FRAME_RATE), stage.spec.height, silent=True)
            rng = np.random.default_rng([SEED, index])
            identity = Identity.sample(rng)
            # The noise of a quiet line, which counts as silence.
            quiet = noise(rng, len(subject.waveform)) * np.float32(1e-4)
            video = stage.talk(subject.portrait, quiet)[_SETTLING_FRAMES:]
            opening = subject.gauge.opening(video)
            closed.append(closedness(opening, np.zeros(len(opening))))
            blinks += count_blinks(BlinkGauge.calibrate(identity, stage.spec.height).closed(video))
            moved.append(float(np.abs(np.diff(video.astype(np.int16), axis=0)).mean()))
        minutes = subjects * (seconds - _SETTLING_FRAMES / FRAME_RATE) / 60
        rows.append(
            {
                "replays": replays,
                "mean_chunk_ms": 1e3 * float(np.mean(stage.seconds)),
                "closed": float(np.mean(closed)),
                "blinks_per_minute": blinks / minutes,
                "mean_change": float(np.mean(moved)),
            }
        )
    for row in rows:
        row["cost"] = row["mean_chunk_ms"] / rows[0]["mean_chunk_ms"]
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the figures."""
    return exit_status("live_figures", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["dial", "idle"])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--subjects", type=argument(Whole(1, 1000)), default=12)
    parser.add_argument(
        "--seconds", type=argument(Real(0.1, 3600.0, "seconds")), default=5.76, help="length of every clip"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    measure = dial_figures if options.what == "dial" else idle_figures
    rows = measure(Bundle.open(options.bundle), options.subjects, options.seconds)
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(" ".join(f"{name:>18s}" for name in rows[0]))
    for row in rows:
        print(" ".join(f"{value:18.3f}" for value in row.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
