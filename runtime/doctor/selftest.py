"""The self-test: plays a bundle's golden clip here and compares the frames with those that PyTorch rendered.

In: a bundle. Out: how close the frames are and how fast they came, with a verdict.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from ..bundle.golden import GoldenClip, read_golden
from ..errors import BundleError
from ..inputs.audio_file import AudioFile
from ..inputs.convert import to_mono
from ..inputs.sound_container import BUNDLE_CONTAINERS
from ..reports.likeness import psnr
from ..reports.run_report import Report, RunMeter

MAX_SECONDS = 60.0


@dataclass(frozen=True)
class SelfTest:
    """The verdict of a self-test.

    Attributes:
        model: name of the spec.
        passed: whether every compared frame reaches the gate.
        worst_psnr: in dB, of the worst compared frame; equal frames have 200.
        gate: in dB, what is wanted at the bundle's precision.
        exported_psnr: in dB, what the bundle reached when it was exported; None if it does not say.
        frames_compared: how many.
        run: how fast it was, and on what.
    """

    model: str
    passed: bool
    worst_psnr: float
    gate: float
    exported_psnr: float | None
    frames_compared: int
    run: Report

    def to_json(self) -> str:
        """One JSON object; `run` is the report as `rap-run` writes it."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    def to_markdown(self) -> str:
        """One card."""
        run = self.run
        memory = "unknown" if run.peak_rss_mb is None else f"{run.peak_rss_mb:.0f} MiB at most"
        exported = "" if self.exported_psnr is None else f"; {self.exported_psnr:.1f} dB when exported"
        rows = [
            ("model", f"{self.model}, {run.precision}"),
            ("engine", run.engine),
            ("device", run.device),
            (
                "picture",
                f"{self.worst_psnr:.1f} dB in the worst of {self.frames_compared} frames, "
                f"{self.gate:.0f} dB wanted{exported}",
            ),
            ("real-time factor", f"{run.rtf:.3f}, p95 {run.rtf_p95:.3f}"),
            ("first frame", f"{run.ttff_ms:.0f} ms, after loading for {run.load_ms:.0f} ms"),
            ("memory", memory),
        ]
        lines = [f"## Self-test: {'passed' if self.passed else 'FAILED'}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in rows]
        lines += ["", "| stage | p50 ms | p95 ms |", "|---|--:|--:|"]
        lines += [f"| {name} | {times.p50_ms:.2f} | {times.p95_ms:.2f} |" for name, times in run.stages.items()]
        return "\n".join([*lines, *(f"\n{warning}" for warning in run.warnings)])


def run_selftest(
    bundle: Bundle,
    *,
    engine: str | None = None,
    fallback: bool = False,
    threads: int | None = None,
    on_progress: Callable[[float], None] = lambda seconds: None,
) -> SelfTest:
    """Render the golden clip and compare.

    Args:
        bundle: with a golden clip.
        engine, fallback, threads: as `Avatar.open`.
        on_progress: is told the rendered seconds after every chunk.

    Raises:
        BundleError: the bundle has no usable golden clip, or is not to be trusted.
        EngineError: the engines cannot be loaded, or one failed.
        NumericalError: a stage gave NaN or Inf.
        AudioError, PortraitError: a golden file cannot be read.
    """
    golden = read_golden(bundle)
    speech, rate = _speech(golden)
    spec = bundle.manifest.spec
    started = time.perf_counter()
    with Avatar.open(bundle, golden.portrait, engine=engine, fallback=fallback, threads=threads, crop="none") as avatar:
        load_seconds = time.perf_counter() - started
        meter = RunMeter(spec)
        frames = _play(avatar, speech, rate, golden, meter, on_progress)
        report = meter.report(
            engine=avatar.engine,
            precision=avatar.precision,
            device=avatar.device,
            load_seconds=load_seconds,
            warnings=avatar.notes,
        )
    worst = min(psnr(frame, expected) for frame, expected in zip(frames, golden.frames, strict=True))
    gate = bundle.manifest.precision.frame_psnr
    return SelfTest(
        model=spec.name,
        passed=worst >= gate,
        worst_psnr=worst,
        gate=gate,
        exported_psnr=golden.psnr,
        frames_compared=len(frames),
        run=report,
    )


def _speech(golden: GoldenClip) -> tuple[NDArray[np.float32], int]:
    blocks: list[NDArray[np.float32]] = []
    with AudioFile(golden.audio, BUNDLE_CONTAINERS) as source:
        left = round(MAX_SECONDS * source.rate)
        for block in source:
            blocks.append(to_mono(block))
            left -= len(block)
            if left < 0:
                raise BundleError(f"The golden speech is longer than {MAX_SECONDS:.0f} s; export the bundle again.")
        return np.concatenate(blocks), source.rate


def _play(
    avatar: Avatar,
    speech: NDArray[np.float32],
    rate: int,
    golden: GoldenClip,
    meter: RunMeter,
    on_progress: Callable[[float], None],
) -> list[NDArray[np.uint8]]:
    """The rendered frames that the clip expects, in order."""
    wanted, found, first = golden.indices, [], 0
    with avatar.session(seed=golden.seed, sample_rate=rate) as session:
        session.push(speech)
        session.finish()
        chunks = session.chunks()
        while True:
            started = time.perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                break
            meter.add_chunk(chunk, time.perf_counter() - started)
            inside = wanted[(wanted >= first) & (wanted < first + len(chunk.frames))] - first
            found += [chunk.frames[index].copy() for index in inside]
            first += len(chunk.frames)
            on_progress(first / avatar.spec.fps)
        meter.note(session.notes)
    if len(found) < len(wanted):
        raise BundleError(
            f"The golden clip expects frame {wanted[-1]} and its speech gives {first} frames; export the bundle again."
        )
    return found
