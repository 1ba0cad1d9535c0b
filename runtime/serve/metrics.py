"""Counters and gauges in Prometheus' text format (version 0.0.4), written by hand: there are few of them."""

from __future__ import annotations

from collections.abc import Callable

from ..session.stream_core import Rendering

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RENDER_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0)


class Counter:
    """A number that only grows, with at most one label."""

    kind = "counter"

    def __init__(self, name: str, text: str, label: str | None = None) -> None:
        self.name, self.text, self._label = name, text, label
        self._values: dict[str, float] = {} if label else {"": 0.0}

    def add(self, amount: float = 1.0, label: str = "") -> None:
        """Count; `label` is one of a few fixed words, never a client's."""
        self._values[label] = self._values.get(label, 0.0) + amount

    def lines(self) -> list[str]:
        """The samples."""
        if self._label is None:
            return [f"{self.name} {self._values['']:g}"]
        return [f'{self.name}{{{self._label}="{label}"}} {value:g}' for label, value in sorted(self._values.items())]


class Gauge:
    """A number that is asked for when the metrics are read."""

    kind = "gauge"

    def __init__(self, name: str, text: str, value: Callable[[], float]) -> None:
        self.name, self.text, self._value = name, text, value

    def lines(self) -> list[str]:
        """The sample."""
        return [f"{self.name} {self._value():g}"]


class Histogram:
    """A cumulative histogram."""

    kind = "histogram"

    def __init__(self, name: str, text: str, buckets: tuple[float, ...]) -> None:
        self.name, self.text, self._buckets = name, text, buckets
        self._counts = [0] * len(buckets)
        self._count, self._total = 0, 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._count += 1
        self._total += value
        for index, limit in enumerate(self._buckets):
            self._counts[index] += value <= limit

    def lines(self) -> list[str]:
        """The samples."""
        lines = [
            f'{self.name}_bucket{{le="{limit:g}"}} {count}'
            for limit, count in zip(self._buckets, self._counts, strict=True)
        ]
        return [
            *lines,
            f'{self.name}_bucket{{le="+Inf"}} {self._count}',
            f"{self.name}_sum {self._total:g}",
            f"{self.name}_count {self._count}",
        ]


class Metrics:
    """What rap-serve counts; used from the event loop alone."""

    def __init__(self, *, sessions: Callable[[], float], places: float, rtf: float) -> None:
        """`sessions` gives the open sessions, `places` is how many there may be, `rtf` was measured at start."""
        self.opened = Counter("rap_serve_sessions_total", "Sessions that were opened.", "transport")
        self.ended = Counter("rap_serve_sessions_ended_total", "Sessions that ended, by reason.", "reason")
        self.refused = Counter("rap_serve_refused_total", "Requests that were refused, by reason.", "reason")
        self.uploads = Counter("rap_serve_portraits_total", "Portraits that were uploaded and accepted.")
        self.chunks = Counter("rap_serve_chunks_total", "Chunks rendered.")
        self.late_chunks = Counter("rap_serve_late_chunks_total", "Chunks that took longer to render than they play.")
        self.marks = Counter("rap_serve_quality_total", "Chunks by how good their frames are.", "mark")
        self.frames = Counter("rap_serve_frames_total", "Frames rendered.")
        self.stalled_slots = Counter("rap_serve_stalled_frames_total", "Frame times at which no new frame was there.")
        self.dropped_seconds = Counter("rap_serve_dropped_audio_seconds_total", "Audio dropped because of overload.")
        self.render = Histogram("rap_serve_render_seconds", "Time to render a chunk.", _RENDER_BUCKETS)
        self._all: list[Counter | Gauge | Histogram] = [
            Gauge("rap_serve_sessions", "Sessions that are open.", sessions),
            Gauge("rap_serve_sessions_max", "Sessions that the machine holds in real time.", lambda: places),
            Gauge("rap_serve_rtf_at_start", "Real-time factor of one session, measured at start.", lambda: rtf),
            *(value for value in vars(self).values() if isinstance(value, Counter | Histogram)),
        ]

    def count(self, rendering: Rendering) -> None:
        """Note what became of a chunk."""
        if rendering.frames:
            self.render.observe(rendering.seconds)
        self.chunks.add()
        self.late_chunks.add(rendering.late)
        self.marks.add(label=rendering.mark)
        self.frames.add(rendering.frames)

    def text(self) -> str:
        """Everything, for a scrape."""
        lines = []
        for metric in self._all:
            lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(lines) + "\n"
