"""Who tells a session how to render each chunk, and whether to: an overload policy, or nobody.

The policy's governor keeps deadlines and decisions around the pure rules of `overload`.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from ..spec import ModelSpec
from . import overload
from .overload import Decision, Overload, Rung

_DECISIONS_KEPT = 10_000


class Governor(Protocol):
    """Tells a session how to render each chunk, and whether to."""

    @property
    def rung(self) -> Rung:
        """How the next chunk is rendered."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided lately, the oldest first."""

    def ready(self, at: float) -> None:
        """The sound of one more chunk is complete, at `at` seconds on the session's clock."""

    def admits(self, index: int, now: float) -> bool:
        """Whether chunk `index`, the oldest that is ready, is to be rendered; decides about those behind it too."""

    def left_out(self, index: int) -> None:
        """Chunk `index` was passed on without being rendered."""

    def replayed(self, now: float) -> bool:
        """A chunk of idle motion was passed on; returns whether it was late."""

    def rendered(self, index: int, now: float, seconds: float) -> bool:
        """Chunk `index` was rendered within `seconds`; returns whether it was late."""

    def forgives(self, index: int, reason: str) -> bool:
        """Chunk `index` failed: whether the session goes on without it."""


class Unhurried:
    """The governor without a policy: every chunk is rendered in full, however late, and none may fail."""

    decisions: tuple[Decision, ...] = ()

    def __init__(self, spec: ModelSpec) -> None:
        """Render with the spec's own steps at the full frame rate."""
        self.rung, self._chunk_seconds = Rung(spec.steps), spec.chunk_seconds

    def ready(self, at: float) -> None:
        """Nothing becomes due."""

    def admits(self, index: int, now: float) -> bool:
        """Always."""
        return True

    def left_out(self, index: int) -> None:
        """Nothing is."""

    def replayed(self, now: float) -> bool:
        """Never late: nothing was computed."""
        return False

    def rendered(self, index: int, now: float, seconds: float) -> bool:
        """Late where it took longer than it plays."""
        return seconds > self._chunk_seconds

    def forgives(self, index: int, reason: str) -> bool:
        """Never."""
        return False


class OverloadGovernor:
    """The governor of a live session, which degrades as its policy says."""

    def __init__(self, policy: Overload, spec: ModelSpec) -> None:
        """Start at the best rung, the spec's own steps at the full frame rate."""
        self._policy, self._spec, self._chunk_seconds = policy, spec, spec.chunk_seconds
        self._budget = spec.chunk_seconds if policy.budget is None else policy.budget
        self._ladder = overload.rungs(spec.steps)
        self._state = overload.start(policy)
        self._dues: deque[float] = deque()
        self._last_due: float | None = None
        self._dropped: set[int] = set()
        self._failures = 0
        self._decisions: deque[Decision] = deque(maxlen=_DECISIONS_KEPT)
        self._lock = threading.Lock()

    @property
    def rung(self) -> Rung:
        """How the next chunk is rendered."""
        return self._ladder[self._state.level]

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The last ten thousand decisions, the oldest first."""
        with self._lock:
            return tuple(self._decisions)

    def ready(self, at: float) -> None:
        """The sound of one more chunk is complete, at `at` seconds on the session's clock."""
        with self._lock:
            self._last_due = overload.due_after(self._last_due, at, self._budget, self._chunk_seconds)
            self._dues.append(self._last_due)

    def admits(self, index: int, now: float) -> bool:
        """Whether chunk `index`, the oldest that is ready, is to be rendered; decides about those behind it too."""
        with self._lock:
            waiting = [
                index + i
                for i, due in enumerate(self._dues)
                if index + i not in self._dropped and (i == 0 or due - self._budget <= now)
            ]
            self._state, decisions = overload.before_chunk(
                self._policy,
                self._ladder,
                self._state,
                waiting=tuple(self._pts(i) for i in waiting),
                time_left=self._dues[0] - now,
                chunk_seconds=self._chunk_seconds,
            )
            self._decisions.extend(decisions)
            self._dropped.update(round(d.pts / self._chunk_seconds) for d in decisions if d.dropped)
            return index not in self._dropped

    def left_out(self, index: int) -> None:
        """Chunk `index` was passed on without being rendered."""
        with self._lock:
            self._dropped.discard(index)
            self._dues.popleft()

    def replayed(self, now: float) -> bool:
        """A chunk of idle motion was passed on; returns whether it was late."""
        with self._lock:
            return now > self._dues.popleft()

    def rendered(self, index: int, now: float, seconds: float) -> bool:
        """Chunk `index` was rendered within `seconds`; returns whether it was late."""
        with self._lock:
            late_by = now - self._dues.popleft()
            self._failures = 0
            self._state, decision = overload.after_chunk(
                self._policy,
                self._ladder,
                self._state,
                pts=self._pts(index),
                late_by=late_by,
                render_seconds=seconds,
                chunk_seconds=self._chunk_seconds,
            )
            if decision is not None:
                self._decisions.append(decision)
            return late_by > 0.0

    def forgives(self, index: int, reason: str) -> bool:
        """Chunk `index` failed: whether the session goes on without it."""
        with self._lock:
            self._dues.popleft()
            self._failures += 1
            rung = self.rung
            self._decisions.append(Decision(self._pts(index), reason, rung.steps, rung.frame_step, dropped=True))
            return self._failures <= self._policy.failures

    def _pts(self, index: int) -> float:
        return index * self._spec.new_frames / self._spec.fps
