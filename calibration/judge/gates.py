"""The gates that 8 bits must hold: a long roll-out with its state fed back, against fp32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.errors import CalibrationError
from rap_edge.runtime.reports.likeness import ROUNDED_PSNR

from ..record.clips import Talk
from .quality import Bytes, mean_ssim, psnr

SSIM_EVERY = 5
DRIFT_SECONDS = 10.0


@dataclass(frozen=True)
class Gates:
    """What a calibrated bundle must reach.

    Attributes:
        psnr: least PSNR in dB to fp32 over the whole clip.
        ssim: least mean SSIM to fp32.
        mouth_loss: most that the correlation of the mouth's opening may lose.
        drift: most dB by which the last 10 s may be further from fp32 than the first 10 s, of which no more counts than
            `ROUNDED_PSNR`, unless the end would still hold `psnr` if it fell by as much again; 3 dB is twice the error.
        speedup: least ratio of the base's time to the calibrated bundle's.
    """

    psnr: float = 30.0
    ssim: float = 0.93
    mouth_loss: float = 0.03
    drift: float = 3.0
    speedup: float = 1.0


@dataclass(frozen=True)
class Figure:
    """One gate's outcome; `value` is None where it could not be measured, and `note` says why."""

    value: float | None
    limit: float
    passed: bool
    note: str = ""


def judge(frames: Bytes, reference: Bytes, talk: Talk, fps: int, gates: Gates) -> dict[str, Figure]:
    """Compare two long roll-outs of the same clip.

    Args:
        frames: of the calibrated graphs, uint8 [T, H, W, 3].
        reference: of fp32, the same shape.
        talk: the clip.
        fps: frames per second.
        gates: the limits.
    """
    quality, similarity = psnr(frames, reference), mean_ssim(frames, reference, SSIM_EVERY)
    ends = min(round(DRIFT_SECONDS * fps), len(frames) // 2)
    # From exact to a level here and there is no fall.
    start, end = (min(psnr(frames[part], reference[part]), ROUNDED_PSNR) for part in (slice(ends), slice(-ends, None)))
    drift = start - end
    # What begins nearly exact has far to fall before anything is seen.
    lasting = end - drift >= gates.psnr
    excused = f"the last 10 s are still at {end:.1f} dB, and a fall by as much again would hold"
    note = excused if lasting and drift > gates.drift else ""
    return {
        "psnr": Figure(quality, gates.psnr, quality >= gates.psnr),
        "ssim": Figure(similarity, gates.ssim, similarity >= gates.ssim),
        "mouth_loss": _mouth(frames, reference, talk, gates.mouth_loss),
        "drift": Figure(drift, gates.drift, drift <= gates.drift or lasting, note),
    }


def speed_figure(ratio: float, gates: Gates, *, measured: bool) -> Figure:
    """The gate on time: 8 bits must win."""
    note = "" if measured else "by the cost model"
    return Figure(ratio, gates.speedup, ratio > gates.speedup, note)


def require(figures: Mapping[str, Figure]) -> None:
    """Raise `CalibrationError` that names the first gate that does not hold."""
    for name, figure in figures.items():
        if not figure.passed:
            word, unit = GATE_WORDS[name]
            value = "unknown" if figure.value is None else f"{figure.value:.3f}"
            raise CalibrationError(
                f"The calibrated bundle fails the gate {word}: {value}{unit}, needed {figure.limit:g}{unit}; use more "
                "calibration audio, or keep the bundle that it came from."
            )


GATE_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "psnr": ("'PSNR to fp32, at least'", " dB"),
        "ssim": ("'SSIM to fp32, at least'", ""),
        "mouth_loss": ("'loss of mouth correlation, at most'", ""),
        "drift": ("'drift between the first and the last 10 s, at most'", " dB"),
        "speedup": ("'time of the base over time in 8 bits, more than'", "x"),
    }
)


def _mouth(frames: Bytes, reference: Bytes, talk: Talk, limit: float) -> Figure:
    if talk.gauge is None:
        return Figure(None, limit, True, "not measured: no mouth can be read off these portraits")
    opening, expected = talk.gauge(frames), talk.gauge(reference)
    if talk.opening is None:
        loss = 1.0 - correlation(opening, expected)
        return Figure(loss, limit, loss <= limit, "1 - correlation with fp32's mouth: the truth is not known")
    truth = talk.opening[: len(frames)]
    count = len(truth)
    before, after = correlation(expected[:count], truth), correlation(opening[:count], truth)
    note = f"correlation with the truth {before:.3f} in fp32, {after:.3f} calibrated"
    return Figure(before - after, limit, before - after <= limit, note)


def correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Pearson correlation of two tracks; 1 where both stand still, 0 where one does."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    if scale < 1e-9:
        return 1.0 if float(np.abs(a).max(initial=0)) < 1e-6 and float(np.abs(b).max(initial=0)) < 1e-6 else 0.0
    return float((a * b).sum()) / scale
