"""One graph loaded twice on the CPU: with all cores for a chunk that is alone, with a few for chunks side by side.

Both are bound to the same buffers, so the loop over them does not know which one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .interface import Array, Engine, Execution


class PairedExecution:
    """Two executions over one session's buffers."""

    def __init__(self, whole: Execution, part: Execution, alone: Callable[[], bool]) -> None:
        """Made by `PairedEngine.prepare`."""
        self.buffers = whole.buffers
        self._whole, self._part, self._alone = whole, part, alone

    def run(self) -> None:
        """Run with all cores or with a few; see `Execution.run`."""
        (self._whole if self._alone() else self._part).run()

    def capture(self) -> str:
        """As the engine with all cores; see `Execution.capture`."""
        return self._whole.capture()


class PairedEngine:
    """Two engines of one graph that give the same bits."""

    def __init__(self, whole: Engine, part: Engine, alone: Callable[[], bool]) -> None:
        """Pair engines.

        Args:
            whole: takes every core.
            part: takes its share of the cores; several threads may run it at the same time.
            alone: whether the chunk that is being rendered has every core; changes between chunks only.
        """
        self.backend, self.device, self.graph = whole.backend, whole.device, whole.graph
        self._whole, self._part, self._alone = whole, part, alone

    def prepare(
        self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None
    ) -> PairedExecution:
        """Bind buffers to both; see `Engine.prepare`."""
        whole = self._whole.prepare(buffers, sizes)
        return PairedExecution(whole, self._part.prepare(whole.buffers, sizes), self._alone)
