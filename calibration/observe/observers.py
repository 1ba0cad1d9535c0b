"""Observers: which magnitude of an activation becomes the largest 8-bit number.

All of them read one histogram of magnitudes, which takes constant memory however much it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

BINS = 2048
PERCENTILE = 99.99
SAMPLES = 1 << 16
_CANDIDATES = 96
_SMALLEST_SHARE = 0.2
_NARROWEST = 2.0**-126  # of a bin: float32 has no smaller normal number to divide by


class Histogram:
    """Counts of |x| in `BINS` equal bins from 0; the bins double in width when a larger value comes."""

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(BINS)
        self.width = 0.0
        self.largest = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Count the magnitudes of an array of any shape, of a large one those of evenly spread elements."""
        flat = np.asarray(values, np.float32).ravel()
        largest = max(float(flat.max(initial=0.0)), -float(flat.min(initial=0.0)))
        self.largest = max(self.largest, largest)
        # An odd stride meets every channel, whatever their number's power of two.
        magnitudes = np.abs(flat[:: max(1, flat.size // SAMPLES) | 1])
        if self.width == 0.0:
            if largest == 0.0:
                self.counts[0] += magnitudes.size
                return
            # A power of two, so that doubling never depends on the order of what is shown.
            self.width = max(float(2.0 ** np.ceil(np.log2(largest))) / BINS, _NARROWEST)
        while self.width * BINS < largest:
            self.counts = np.concatenate((self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)))
            self.width *= 2.0
        bins = np.minimum((magnitudes / np.float32(self.width)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The magnitude that each bin stands for."""
        centres: NDArray[np.float64] = (np.arange(BINS, dtype=np.float64) + 0.5) * self.width
        return centres


Observer = Callable[[Histogram, int], float]


def min_max(histogram: Histogram, levels: int) -> float:
    """The largest magnitude seen: nothing is clipped."""
    return histogram.largest


def percentile(histogram: Histogram, levels: int) -> float:
    """The magnitude below which `PERCENTILE` per cent lie."""
    total = histogram.counts.sum()
    if histogram.width == 0.0 or total == 0.0:
        return histogram.largest
    reached = np.searchsorted(np.cumsum(histogram.counts), total * PERCENTILE / 100.0)
    return min(float((reached + 1) * histogram.width), histogram.largest)


def mean_square(histogram: Histogram, levels: int) -> float:
    """The limit with the least mean square error of rounding to `levels` steps and clipping."""
    if histogram.width == 0.0:
        return histogram.largest
    centres, counts = histogram.centres, histogram.counts
    limits = histogram.largest * np.linspace(_SMALLEST_SHARE, 1.0, _CANDIDATES)
    errors = []
    for limit in limits:
        step = limit / levels
        inside = centres <= limit
        # Rounding inside costs step^2 / 12, less where a bin holds what rounds exactly.
        rounding = counts[inside].sum() * step**2 / 12.0
        errors.append(rounding + (counts[~inside] * (centres[~inside] - limit) ** 2).sum())
    return float(limits[int(np.argmin(errors))])


def entropy(histogram: Histogram, levels: int) -> float:
    """The limit whose clipped and coarsened distribution is nearest to the seen one (Kullback-Leibler divergence).

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    last = int(np.flatnonzero(histogram.counts)[-1]) + 1 if histogram.counts.any() else 0
    if histogram.width == 0.0 or last <= levels + 1:
        return histogram.largest
    best, found = np.inf, last
    for stop in np.unique(np.linspace(levels + 1, last, _CANDIDATES).astype(int)):
        clipped = histogram.counts[:stop].copy()
        kept = clipped.copy()
        clipped[-1] += histogram.counts[stop:].sum()
        edges = np.linspace(0, stop, levels + 1).astype(int)[:-1]
        sums = np.add.reduceat(kept, edges)
        filled = np.add.reduceat((kept > 0).astype(float), edges)
        mean = np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0)
        coarse = np.repeat(mean, np.diff(np.append(edges, stop))) * (kept > 0)
        divergence = _divergence(clipped, coarse)
        if divergence < best:
            best, found = divergence, int(stop)
    return min(float(found * histogram.width), histogram.largest)


def _divergence(seen: NDArray[np.float64], coarse: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of two histograms; a bin that only `seen` fills counts as nearly empty."""
    if seen.sum() == 0.0 or coarse.sum() == 0.0:
        return np.inf
    p, q = seen / seen.sum(), np.maximum(coarse / coarse.sum(), 1e-9)
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


OBSERVERS: Mapping[str, Observer] = MappingProxyType(
    {"min-max": min_max, "percentile": percentile, "entropy": entropy, "mse": mean_square}
)
