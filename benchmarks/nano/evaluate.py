"""Held-out figures of nano: faces, sentences and voices that training never saw, with the gates that they must pass.

Every subject is a portrait with a closed mouth and some ten seconds of speech after half a second of silence. The
mouth's opening is measured on the generated frames alone (see `measure`) and compared with the opening that the
renderer would have drawn. Controls: the truth of another subject (wrong audio) and a picture that never moves.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rap_edge.models.nano import SHIPPED
from rap_edge.models.nano.measure.held_out import LEAD_FRAMES, Bytes, Floats, Subject
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.checks.bounds import Real, Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.spec import STEPS, ModelSpec

with program_needs_extra("train", __name__):
    import cv2

    from rap_edge.models.checkpoints.load import load_networks
    from rap_edge.models.nano.data.speech import FRAME_RATE, FRAME_SAMPLES
    from rap_edge.models.nano.measure.mouth import (
        best_lag,
        closedness,
        correlation,
        psnr_outside,
        within_latent_correlation,
    )
    from rap_edge.models.nano.measure.seams import seam_ratio
    from rap_edge.models.nano.training.rollout import roll_out
    from rap_edge.models.networks import Networks


Talker = Callable[[Bytes, Floats], Bytes]


def torch_talker(networks: Networks) -> Talker:
    """Speaks through the PyTorch networks."""

    def talk(portrait: Bytes, waveform: Floats) -> Bytes:
        chunks = -(-len(waveform) // networks.spec.chunk_samples)
        return roll_out(networks, portrait[None], waveform[None], chunks)[0][: len(waveform) // FRAME_SAMPLES]

    return talk


def bundle_talker(bundle: Path) -> Talker:
    """Speaks through the torch-free runtime, as shipped."""

    def talk(portrait: Bytes, waveform: Floats) -> Bytes:
        with Avatar.open(bundle, portrait) as avatar, avatar.session(seed=0) as session:
            session.push(waveform)
            session.finish()
            return np.concatenate([chunk.frames for chunk in session.chunks()])[: len(waveform) // FRAME_SAMPLES]

    return talk


def figures(talk: Talker, spec: ModelSpec, subjects: int, frames: int) -> tuple[dict[str, float], Bytes]:
    """The figures of the roll-outs, and a contact sheet of truth and result."""
    opening, truth, outside, seams, rows = [], [], [], [], []
    for index in range(subjects):
        subject = Subject.sample(index, frames, spec.height)
        video = talk(subject.portrait, subject.waveform)
        opening.append(subject.gauge.opening(video))
        truth.append(subject.mouth[:, 0])
        outside.append(psnr_outside(video, subject.still, subject.boxes))
        seams.append(seam_ratio(video, subject.boxes, spec.new_frames))
        if index < 6:
            shown = np.linspace(LEAD_FRAMES + 8, min(frames - 1, 120), 6).astype(int)
            rows += [np.concatenate(subject.still[shown], axis=1), np.concatenate(video[shown], axis=1)]
        print(
            f"subject {index + 1}/{subjects}: correlation {correlation(opening[-1], truth[-1]):.3f}, "
            f"outside the mouth {outside[-1]:.1f} dB",
            file=sys.stderr,
        )
    measured, expected = np.stack(opening), np.stack(truth)
    lag, at_lag = best_lag(measured, expected)
    wrong = float(np.mean([correlation(np.roll(measured, shift, axis=0), expected) for shift in range(1, subjects)]))
    values = {
        "correlation": correlation(measured, expected),
        "best_lag": float(lag),
        "best_lag_correlation": at_lag,
        "within_latent_correlation": within_latent_correlation(measured, expected, first=0),
        "wrong_audio_correlation": wrong,
        "static_frame_correlation": correlation(np.zeros_like(measured), expected),
        "psnr_outside_mouth": float(-10 * np.log10(np.mean(10 ** (-np.array(outside) / 10)))),
        "seam_ratio": float(np.mean(seams)),
        "closed_in_pauses": closedness(measured[:, 4:], expected[:, 4:]),
    }
    return values, np.concatenate(rows)


def silence_figure(talk: Talker, spec: ModelSpec, subjects: int) -> float:
    """Share of frames with a closed mouth where there is silence or noise and no speech."""
    shares = []
    for index in range(1000, 1000 + subjects):
        subject = Subject.sample(index, 3 * FRAME_RATE, spec.height, silent=True)
        opening = subject.gauge.opening(talk(subject.portrait, subject.waveform))
        shares.append(closedness(opening, subject.mouth[:, 0]))
    return float(np.mean(shares))


def stream_figures(talk: Talker, spec: ModelSpec, seconds: int) -> dict[str, float]:
    """One long stream: PSNR outside the mouth of the first and the last ten seconds, and the mouth's correlation."""
    subject = Subject.sample(2000, seconds * FRAME_RATE, spec.height)
    video = talk(subject.portrait, subject.waveform)
    span = 10 * FRAME_RATE
    opening = subject.gauge.opening(video)
    return {
        "stream_first_psnr": psnr_outside(video[:span], subject.still[:span], subject.boxes[:span]),
        "stream_last_psnr": psnr_outside(video[-span:], subject.still[-span:], subject.boxes[-span:]),
        "stream_first_correlation": correlation(opening[:span], subject.mouth[:span, 0]),
        "stream_last_correlation": correlation(opening[-span:], subject.mouth[-span:, 0]),
    }


def gates(values: dict[str, float]) -> dict[str, bool]:
    """Which of the goal's figures are reached."""
    checks = {
        "correlation >= 0.80": values["correlation"] >= 0.80,
        "best lag within 1 frame": abs(values["best_lag"]) <= 1,
        "0.4 above the wrong audio": values["correlation"] - values["wrong_audio_correlation"] >= 0.4,
        "within-latent correlation >= 0.6": values["within_latent_correlation"] >= 0.6,
        "outside the mouth >= 26 dB": values["psnr_outside_mouth"] >= 26.0,
        "closed in silence >= 0.95": values["closed_in_silence"] >= 0.95,
    }
    if "stream_last_psnr" in values:
        drop = abs(values["stream_last_psnr"] - values["stream_first_psnr"])
        checks["last 10 s of the stream within 1 dB of the first"] = drop <= 1.0
    return checks


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the weights or a bundle; print and write the figures."""
    return exit_status("evaluate", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="checkpoint folder, through PyTorch")
    parser.add_argument("--bundle", type=Path, help="bundle folder, through the torch-free runtime, instead")
    parser.add_argument("--subjects", type=argument(Whole(1, 1000)), default=12)
    parser.add_argument(
        "--seconds", type=argument(Real(0.1, 3600.0, "seconds")), default=9.6, help="length of every roll-out"
    )
    parser.add_argument(
        "--stream-seconds",
        type=argument(Whole(0, 86400, "seconds")),
        default=120,
        help="length of the long stream; 0 leaves it out",
    )
    parser.add_argument("--steps", type=argument(STEPS), help="denoise steps per chunk; the spec's if not given")
    parser.add_argument("--out", type=Path, default=Path("build/nano-evaluation"), help="for figures and pictures")
    options = parser.parse_args(arguments)
    networks = load_networks(options.weights)
    if options.steps:
        networks = dataclasses.replace(networks, spec=networks.spec.with_steps(options.steps))
    talk = bundle_talker(options.bundle) if options.bundle else torch_talker(networks)
    spec = networks.spec
    values, sheet = figures(talk, spec, options.subjects, round(options.seconds * FRAME_RATE))
    values["closed_in_silence"] = silence_figure(talk, spec, max(2, options.subjects // 2))
    if options.stream_seconds:
        values |= stream_figures(talk, spec, options.stream_seconds)
    passed = gates(values)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"figures": values, "gates": passed, "engine": "runtime" if options.bundle else "torch"}
    (options.out / "figures.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    cv2.imwrite(str(options.out / "sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    for name, value in values.items():
        print(f"{name:32s} {value:8.3f}")
    for name, good in passed.items():
        print(f"{'pass' if good else 'FAIL'}  {name}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
