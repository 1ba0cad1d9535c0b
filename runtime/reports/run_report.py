"""The report of a run: real-time factor, first-frame latency, per-stage times, memory; as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from ..bundle.manifest import PortraitFigures
from ..session.chunk import Chunk
from ..spec import ModelSpec
from .live_report import LiveTimes
from .percentiles import Distribution


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of one stage: median, 95th percentile and sum over all chunks."""

    p50_ms: float
    p95_ms: float
    total_ms: float


@dataclass(frozen=True)
class Report:
    """What a run did and how fast.

    Attributes:
        engine: backend and version, "onnxruntime 1.32.0".
        precision: of the bundle's graphs.
        device: what the engines ran on.
        chunks: chunks rendered.
        frames: frames written.
        audio_seconds: length of the speech that was rendered.
        rtf: real-time factor, time spent rendering chunks over `audio_seconds`; below 1 keeps up with speech.
        rtf_p95: 95th percentile over chunks of a chunk's rendering time over the time that a whole chunk plays.
        ttff_ms: from the first pushed sample to the first rendered frame, when the audio comes at once.
        load_ms: opening the bundle, loading the engines and encoding the portrait.
        late_chunks: chunks that took longer to render than they play.
        peak_rss_mb: largest resident memory of the process in MiB, None where the system does not tell.
        stages: by stage name.
        warnings: what was odd about the input.
        live: clock, latency and overload of a live run, None for a file.
        portrait: how near the model's own picture of the portrait is to it, None where it was not measured.
    """

    engine: str
    precision: str
    device: str
    chunks: int
    frames: int
    audio_seconds: float
    rtf: float
    rtf_p95: float
    ttff_ms: float
    load_ms: float
    late_chunks: int
    peak_rss_mb: float | None
    stages: Mapping[str, StageTimes]
    warnings: tuple[str, ...] = ()
    live: LiveTimes | None = None
    portrait: PortraitFigures | None = None

    def to_json(self) -> str:
        """The report as a JSON object with one key per field."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    def to_table(self) -> str:
        """The report for a screen of 80 columns."""
        memory = "unknown" if self.peak_rss_mb is None else f"{self.peak_rss_mb:.0f} MiB"
        rows = [
            ("engine", f"{self.engine}, {self.precision}, {self.device}"),
            ("video", f"{self.frames} frames in {self.chunks} chunks for {self.audio_seconds:.2f} s of speech"),
            ("real-time factor", f"{self.rtf:.3f}, p95 {self.rtf_p95:.3f}, {self.late_chunks} late chunks"),
            ("first frame", f"{self.ttff_ms:.0f} ms after the first sound, loading took {self.load_ms:.0f} ms"),
            ("peak memory", memory),
        ]
        if (near := self.portrait) is not None:
            figures = f"PSNR {near.psnr:.1f} dB, SSIM {near.ssim:.2f}, colours {near.colour:.1f} levels apart"
            rows.append(("portrait", f"as the model draws it: {figures}"))
        rows += self.live.rows() if self.live is not None else []
        lines = [f"{name:<17} {value}" for name, value in rows]
        lines.append(f"{'stage':<17} {'p50 ms':>10} {'p95 ms':>10} {'total ms':>10}")
        lines += [
            f"{name:<17} {times.p50_ms:>10.2f} {times.p95_ms:>10.2f} {times.total_ms:>10.1f}"
            for name, times in self.stages.items()
        ]
        lines += [f"{'warning':<17} {warning}" for warning in self.warnings]
        return "\n".join(lines)


class StageTimer:
    """Collects seconds per stage in constant memory."""

    def __init__(self) -> None:
        """Start without stages; they appear in the order of their first time."""
        self._stages: dict[str, Distribution] = {}

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count one time for each stage in `seconds`."""
        for stage, value in seconds.items():
            self._stages.setdefault(stage, Distribution()).add(value)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count the time that the block takes."""
        started = perf_counter()
        yield
        self.add({stage: perf_counter() - started})

    def times(self) -> dict[str, StageTimes]:
        """The summary of every stage so far, in milliseconds."""
        return {
            stage: StageTimes(1e3 * times.percentile(50), 1e3 * times.percentile(95), 1e3 * times.total)
            for stage, times in self._stages.items()
        }


class RunMeter:
    """Measures one run, in constant memory, so that a report can be made at any time.

    Attributes:
        stages: times per stage.
        live: what a live run adds.
    """

    def __init__(self, spec: ModelSpec, on_note: Callable[[str], None] = lambda sentence: None) -> None:
        """Start the clock of the first frame.

        Args:
            spec: of the model that is run.
            on_note: is told every new note of the session, perhaps in another thread.
        """
        self.stages = StageTimer()
        self.live: LiveTimes | None = None
        self._notes: tuple[str, ...] = ()
        self._on_note = on_note
        self._spec = spec
        self._chunks = Distribution()
        self._frames = self._late = 0
        self._audio_seconds = 0.0
        self._started = perf_counter()
        self._first: float | None = None

    def add_chunk(self, chunk: Chunk, render_seconds: float) -> None:
        """Count a chunk that has just been rendered, within `render_seconds`."""
        if self._first is None:
            self._first = perf_counter() - self._started
        self._chunks.add(render_seconds)
        self._audio_seconds += chunk.audio.size / self._spec.sample_rate
        self._frames += len(chunk.frames)
        self._late += chunk.late
        self.stages.add(chunk.stats)

    def note(self, notes: tuple[str, ...]) -> None:
        """Take the session's notes so far, for the report's warnings."""
        for sentence in notes:
            if sentence not in self._notes:
                self._on_note(sentence)
        self._notes = notes

    def report(
        self,
        *,
        engine: str,
        precision: str,
        device: str,
        load_seconds: float,
        warnings: Sequence[str],
        portrait: PortraitFigures | None = None,
    ) -> Report:
        """The report so far."""
        return Report(
            engine=engine,
            precision=precision,
            device=device,
            chunks=self._chunks.count,
            frames=self._frames,
            audio_seconds=self._audio_seconds,
            rtf=self._chunks.total / self._audio_seconds if self._audio_seconds else 0.0,
            rtf_p95=self._chunks.percentile(95) / self._spec.chunk_seconds,
            ttff_ms=1e3 * (self._first or 0.0),
            load_ms=1e3 * load_seconds,
            late_chunks=self._late,
            peak_rss_mb=peak_rss_mb(),
            stages=self.stages.times(),
            warnings=(*warnings, *self._notes),
            live=self.live,
            portrait=portrait,
        )


def peak_rss_mb() -> float | None:
    """The largest resident memory of this process in MiB, or None where the system does not tell."""
    try:
        # On Linux getrusage counts the parent's memory from before exec; VmHWM is this program's own.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
