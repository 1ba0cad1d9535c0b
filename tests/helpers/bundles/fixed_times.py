"""Times of layers in place of measured ones, which a busy machine would make different every time."""

from collections.abc import Collection

import pytest

from rap_edge.calibration.choose.timing import Gain
from rap_edge.calibration.steps import choosing


def fix_times(patch: pytest.MonkeyPatch, slower: Collection[str]) -> None:
    """Let every layer save a millisecond, and two per cent of a chunk, but those of the graphs that are `slower`."""
    measured = choosing._Trial.of

    def measure(variants, plan, kind, inputs, runs, seconds) -> Gain:
        return Gain(-1e-4 if plan.name in slower else 1e-3, 1e-5, len(kind))

    def faster_by_each(trial, keys) -> list[float]:
        return [measured(trial, keys)[0], 1.0 - 0.02 * len(keys)]

    patch.setattr(choosing, "measure_kind", measure)
    patch.setattr(choosing._Trial, "of", faster_by_each)
