"""How far a TensorRT build is, as one number, from the phases that its progress monitor reports."""

from __future__ import annotations


class PhaseTree:
    """Nested phases of known numbers of steps; a phase fills the step of its parent that it runs in."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self._spans: dict[str, tuple[float, float, int]] = {}
        self._done: dict[str, int] = {}
        self.fraction = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins inside the current step of `parent`."""
        begin, size = 0.0, 1.0
        if parent in self._spans:
            outer_begin, outer_size, outer_steps = self._spans[parent]
            step = min(self._done[parent], outer_steps - 1)
            begin, size = outer_begin + outer_size * step / outer_steps, outer_size / outer_steps
        self._spans[phase] = (begin, size, max(steps, 1))
        self._done[phase] = 0
        self._reach(begin)

    def complete(self, phase: str, step: int) -> None:
        """Step number `step`, counted from 0, is done."""
        if phase in self._spans:
            begin, size, steps = self._spans[phase]
            self._done[phase] = min(step + 1, steps)
            self._reach(begin + size * self._done[phase] / steps)

    def finish(self, phase: str) -> None:
        """All of a phase is done."""
        if phase in self._spans:
            begin, size, _ = self._spans.pop(phase)
            del self._done[phase]
            self._reach(begin + size)

    def _reach(self, fraction: float) -> None:
        # Phases may be announced twice; the bar never goes back.
        self.fraction = max(self.fraction, min(fraction, 1.0))
