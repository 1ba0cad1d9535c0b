"""What a long command is doing, with the time left, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rap_edge.runtime.cli.progress import Progress


class StageProgress:
    """How far one stage is."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._done = bar, 0.0

    def advance(self, amount: float) -> None:
        """So much more of the stage's total is done."""
        self._done += amount
        self._bar.update(self._done)

    def note(self, what: str) -> None:
        """Redraw before a long step named `what`."""
        self._bar.update(self._done)


class Stages:
    """Draws one progress bar per stage."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Draw on `stream`, stderr by default."""
        self._stream = stream

    @contextmanager
    def stage(self, name: str, total: float, unit: str = "") -> Iterator[StageProgress]:
        """A stage of `total` units of work; it is complete when the block ends."""
        with Progress(name.ljust(22), total, unit, stream=self._stream) as bar:
            progress = StageProgress(bar)
            yield progress
            bar.update(total)
