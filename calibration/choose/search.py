"""Which layers are in 8 bits: those that pay, less as few as the quality gate asks for, less those that win nothing.

Layers are given up in the order of what they cost in quality for what they save in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rap_edge.runtime.errors import CalibrationError

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
# dB that the short clip has to hold above the gate, more if the long one fails.
MARGINS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0)
# Share of a chunk's time by which two measurements of one set differ.
_SAME_TIME = 0.01


@dataclass(frozen=True)
class Candidate:
    """A layer that pays: its key, seconds saved per chunk, and the mean squared difference that it alone causes."""

    key: str
    seconds: float
    damage: float


@dataclass(frozen=True)
class Point:
    """One set of layers on the Pareto plot.

    Attributes:
        layers: how many are in 8 bits.
        psnr: in dB on the search's clip.
        time: of a chunk, as a share of the base's.
    """

    layers: int
    psnr: float
    time: float


@dataclass(frozen=True)
class Found:
    """The search's outcome.

    Attributes:
        chosen: keys, best first.
        spare: keys that would hold the gate too, with which no set was faster.
        points: every set that was tried, smallest first.
    """

    chosen: tuple[str, ...]
    spare: tuple[str, ...]
    points: tuple[Point, ...]


Evaluate = Callable[[Sequence[str]], tuple[float, float]]


def order(candidates: Sequence[Candidate]) -> list[str]:
    """Keys by damage per second saved, the cheapest in quality first."""
    return [c.key for c in sorted(candidates, key=lambda c: (c.damage / c.seconds, -c.seconds, c.key))]


def search(candidates: Sequence[Candidate], evaluate: Evaluate, least_psnr: float, margin: float = MARGINS[0]) -> Found:
    """The smallest set, in the order of `order`, that holds the gate and is as fast as any that does.

    Args:
        candidates: layers that pay.
        evaluate: gives PSNR in dB of a set and its time as a share of the base's.
        least_psnr: gate.
        margin: dB that are asked for above it, because the search's clip is short.

    Raises:
        CalibrationError: no layer pays, or not even one layer holds the gate.
    """
    ranked = order([c for c in candidates if c.seconds > 0.0])
    if not ranked:
        raise CalibrationError(
            "No layer is faster in 8 bits on this target, so there is nothing to win; keep the bundle as it is."
        )
    wanted = least_psnr + margin
    tried: dict[int, Point] = {}

    def holds(count: int) -> bool:
        if count not in tried:
            tried[count] = Point(count, *evaluate(ranked[:count]))
        return tried[count].psnr >= wanted

    for count in sorted({round(share * len(ranked)) for share in SHARES}):
        holds(count)
    good = max((count for count in tried if tried[count].psnr >= wanted), default=0)
    bad = min((count for count in tried if count > good), default=None)
    while bad is not None and bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    if good == 0:
        raise CalibrationError(
            f"Not even the least sensitive layer holds {wanted:.0f} dB in 8 bits; record more calibration audio, or "
            "keep the bundle as it is."
        )
    points = tuple(tried[count] for count in sorted(tried))
    holding = [point for point in points if 0 < point.layers <= good]
    fastest = min(point.time for point in holding)
    chosen = next(point.layers for point in holding if point.time <= fastest + _SAME_TIME)
    return Found(tuple(ranked[:chosen]), tuple(ranked[chosen:good]), points)
