"""A target of the fuzzer, and the sweep that every target is put through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from rap_edge.runtime.checks.bounds import printable
from rap_edge.runtime.errors import RapEdgeError

LONGEST_SENTENCE = 2000


@dataclass(frozen=True)
class Target:
    """Something that is read from outside.

    Attributes:
        name: of the target, for the command line.
        inputs: good ones, nearly good ones and nonsense.
        read: takes an input as users' programs do; raises a `RapEdgeError` if it is not well.
    """

    name: str
    inputs: SearchStrategy[Any]
    read: Callable[[Any], object]


@dataclass
class Tally:
    """How many inputs were taken and how many refused."""

    taken: int = 0
    refused: int = 0


def sweep(target: Target, count: int, start: int | None = None) -> Tally:
    """Read `count` inputs of a target; any exception but a `RapEdgeError` of one clean sentence goes through.

    Args:
        target: where the inputs come from and what reads them.
        count: how many.
        start: seed of the inputs; None takes the same ones every time.
    """
    tally = Tally()

    def read(value: Any) -> None:
        try:
            target.read(value)
        except RapEdgeError as error:
            sentence = str(error)
            assert printable(sentence), f"a sentence steers the terminal: {sentence!r}"
            assert 0 < len(sentence) < LONGEST_SENTENCE, f"no sentence: {sentence[:LONGEST_SENTENCE]!r}"
            tally.refused += 1
        else:
            tally.taken += 1

    run = settings(
        max_examples=count,
        derandomize=start is None,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(given(target.inputs)(read))
    (run if start is None else seed(start)(run))()
    return tally
