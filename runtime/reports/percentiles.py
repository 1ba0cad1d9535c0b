"""Percentiles of a stream of numbers in constant memory."""

from __future__ import annotations

import random
from array import array


class Distribution:
    """Sum and percentiles of a stream of numbers in constant memory.

    Exact up to `capacity` numbers; beyond it percentiles come from a uniform sample of that size (Vitter,
    "Random sampling with a reservoir", 1985, algorithm R).
    """

    def __init__(self, capacity: int = 4096) -> None:
        """Hold at most `capacity` numbers."""
        self.count, self.total = 0, 0.0
        self._capacity, self._held = capacity, array("d")
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        """Count one number."""
        self.count += 1
        self.total += value
        if len(self._held) < self._capacity:
            self._held.append(value)
        elif (slot := self._random.randrange(self.count)) < self._capacity:
            self._held[slot] = value

    def percentile(self, percent: float) -> float:
        """The value below which `percent` (0..100) of the numbers lie, interpolated; 0 without numbers."""
        if not self._held:
            return 0.0
        ordered = sorted(self._held)
        position = (len(ordered) - 1) * percent / 100.0
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
