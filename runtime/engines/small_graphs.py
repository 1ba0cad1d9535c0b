"""Graphs that are too small to be shared out among cores."""

from __future__ import annotations

from ..bundle.manifest import GraphInfo

SMALL = 100_000_000
"""Floating point operations of one run that a core does in a millisecond or two."""


def threads_for(graph: GraphInfo, most: int) -> int:
    """Threads of one run of `graph`, `most` or one.

    A second core is woken for every run, which takes it longer than its share of a small graph: of a live session's
    chunk nearly all threads slept before.
    """
    # Work that was not counted, or that grows with the sound, may be any.
    known = graph.flops > 0 and not graph.memory
    return 1 if known and graph.flops < SMALL else most
