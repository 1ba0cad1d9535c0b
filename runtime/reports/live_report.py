"""What a live run was like: picture against sound, latency, and everything that was not as it should be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ..session.chunk import Chunk
from ..session.overload import Decision
from .percentiles import Distribution


@dataclass(frozen=True)
class LiveTimes:
    """The live part of a report.

    Attributes:
        av_offset_p50_ms, av_offset_p95_ms, av_offset_max_ms: distance of a frame's presentation time from the sound
            that was heard when it was shown.
        jitter_p95_ms: distance of the time between two shown frames from what it should be, 95th percentile.
        latency_p50_ms, latency_p95_ms: from capturing a sound to showing its picture, mic to picture.
        frames: shown.
        skipped_frames: whose time passed between two looks at the clock.
        held_seconds: for which the last good frame stood because no good one was there.
        late_chunks: that came after their budget.
        dropped_chunks: not rendered, decided by the overload controller.
        failed_chunks: that gave NaN or Inf, or whose engine failed.
        unshown_chunks: whose sound was over when they came.
        cut_seconds: of sound left out, nearly always silence, to take latency away.
        filled_seconds: of silence added, because the source gave nothing.
        decisions: of the overload controller, the last ten thousand.
    """

    av_offset_p50_ms: float
    av_offset_p95_ms: float
    av_offset_max_ms: float
    jitter_p95_ms: float
    latency_p50_ms: float
    latency_p95_ms: float
    frames: int
    skipped_frames: int
    held_seconds: float
    late_chunks: int
    dropped_chunks: int
    failed_chunks: int
    unshown_chunks: int
    cut_seconds: float
    filled_seconds: float
    decisions: tuple[Decision, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of every line on the screen."""
        changes = [f"{d.pts:.2f} s: {_what(d)} ({d.reason})" for d in self.decisions[-5:]]
        return [
            (
                "picture to sound",
                f"p50 {self.av_offset_p50_ms:.0f}, p95 {self.av_offset_p95_ms:.0f}, max {self.av_offset_max_ms:.0f} "
                f"ms, jitter p95 {self.jitter_p95_ms:.0f} ms",
            ),
            ("latency", f"p50 {self.latency_p50_ms:.0f} ms, p95 {self.latency_p95_ms:.0f} ms, sound to its picture"),
            (
                "chunks",
                f"{self.late_chunks} late, {self.dropped_chunks} dropped, {self.failed_chunks} failed, "
                f"{self.unshown_chunks} too late to show",
            ),
            (
                "frames",
                f"{self.frames} shown, {self.skipped_frames} skipped, {self.held_seconds:.2f} s held; sound: "
                f"{self.cut_seconds:.2f} s cut, {self.filled_seconds:.2f} s filled",
            ),
            *(("decision", change) for change in changes),
        ]


class LiveMeter:
    """Collects `LiveTimes` in constant memory; any thread may add."""

    def __init__(self) -> None:
        """Nothing has been shown yet."""
        self._offset, self._jitter, self._latency = Distribution(), Distribution(), Distribution()
        self._largest = 0.0
        self._skipped = self._late = self._dropped = self._failed = self._unshown = 0
        self._held = self._cut = self._filled = 0.0
        self._lock = threading.Lock()

    def add_frame(self, *, offset: float, jitter: float | None, latency: float | None) -> None:
        """A frame was shown: all in seconds; `offset` is picture minus sound, negative is a late picture."""
        with self._lock:
            self._offset.add(abs(offset))
            self._largest = max(self._largest, abs(offset))
            if jitter is not None:
                self._jitter.add(abs(jitter))
            if latency is not None:
                self._latency.add(latency)

    def add_chunk(self, chunk: Chunk, *, unshown: bool) -> None:
        """A chunk came from the session."""
        with self._lock:
            self._late += chunk.late
            self._dropped += chunk.dropped
            self._failed += chunk.failed
            self._unshown += unshown

    def skip(self, frames: int) -> None:
        """Frames were not shown because nobody looked at the clock in time."""
        with self._lock:
            self._skipped += frames

    def hold(self, seconds: float) -> None:
        """The last good frame stood for so long."""
        with self._lock:
            self._held += seconds

    def cut(self, seconds: float) -> None:
        """Sound was left out."""
        with self._lock:
            self._cut += seconds

    def fill(self, seconds: float) -> None:
        """Silence was added."""
        with self._lock:
            self._filled += seconds

    def times(self, decisions: Sequence[Decision] = ()) -> LiveTimes:
        """The figures so far; `decisions` are the session's."""
        with self._lock:
            return LiveTimes(
                av_offset_p50_ms=1e3 * self._offset.percentile(50),
                av_offset_p95_ms=1e3 * self._offset.percentile(95),
                av_offset_max_ms=1e3 * self._largest,
                jitter_p95_ms=1e3 * self._jitter.percentile(95),
                latency_p50_ms=1e3 * self._latency.percentile(50),
                latency_p95_ms=1e3 * self._latency.percentile(95),
                frames=self._offset.count,
                skipped_frames=self._skipped,
                held_seconds=self._held,
                late_chunks=self._late,
                dropped_chunks=self._dropped,
                failed_chunks=self._failed,
                unshown_chunks=self._unshown,
                cut_seconds=self._cut,
                filled_seconds=self._filled,
                decisions=tuple(decisions),
            )


def _what(decision: Decision) -> str:
    if decision.dropped:
        return "dropped"
    rate = "" if decision.frame_step == 1 else f", one frame of {decision.frame_step}"
    return f"{decision.steps} steps{rate}"
