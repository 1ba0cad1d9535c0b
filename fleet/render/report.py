"""What a run over many clips was like: clips per hour, the real-time factor of every box, and what failed."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rap_edge.runtime.cli.table import columns

from .jobs import Job
from .pipeline import TRIES, Answer

_SHOWN = 10


@dataclass
class BoxFigures:
    """What one box has done.

    Attributes:
        machine: its name.
        clips: made by it.
        video_seconds: that they play.
        seconds: that they took, decoding the sound and encoding the video included.
    """

    machine: str
    clips: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def rtf(self) -> float:
        """Real-time factor: `seconds` over `video_seconds`; below 1 a clip is made faster than it plays."""
        return self.seconds / self.video_seconds if self.video_seconds else 0.0


@dataclass(frozen=True)
class FailedClip:
    """A clip that was not made: the line of its job, the name that it would have had, and why."""

    line: int
    output: str
    sentence: str


@dataclass(frozen=True)
class BatchReport:
    """A run of `rap-fleet render`.

    Attributes:
        bundle: its folder.
        precision: of its graphs.
        clips: made by this run.
        kept: made by an earlier one, and still as it left them.
        failed: not made.
        warnings: by output, sentences about clips that were made.
        frames: of the clips that were made.
        video_seconds: that they play.
        seconds: from the first job handed out to the last answer, loading the engines included.
        clips_per_hour: of this run.
        threads: of every box.
        boxes: that have made a clip.
    """

    bundle: str
    precision: str
    clips: int
    kept: int
    failed: tuple[FailedClip, ...]
    warnings: Mapping[str, tuple[str, ...]]
    frames: int
    video_seconds: float
    seconds: float
    clips_per_hour: float
    threads: int
    boxes: tuple[BoxFigures, ...]

    def to_json(self) -> str:
        """The report as a JSON object with one key per field."""
        boxes = [dataclasses.asdict(box) | {"rtf": box.rtf} for box in self.boxes]
        return json.dumps(dataclasses.asdict(self) | {"boxes": boxes}, indent=2, allow_nan=False)

    def to_table(self) -> str:
        """The report for a screen."""
        rows = [
            ("bundle", f"{self.bundle!r}, {self.precision}"),
            ("clips", f"{self.clips} made, {self.kept} there already, {len(self.failed)} failed"),
            ("video", f"{self.frames} frames, {self.video_seconds:.1f} s, in {self.seconds:.1f} s"),
            ("clips per hour", f"{self.clips_per_hour:.0f}"),
        ]
        lines = [f"{name:<17} {value}" for name, value in rows]
        if self.boxes:
            head = ("box", "machine", "clips", "video s", "seconds", "RTF")
            cells = [
                (
                    str(number),
                    box.machine,
                    str(box.clips),
                    f"{box.video_seconds:.1f}",
                    f"{box.seconds:.1f}",
                    f"{box.rtf:.3f}",
                )
                for number, box in enumerate(self.boxes, 1)
            ]
            lines += columns([head, *cells], left=(0, 1))
        lines += [f"{'failed':<17} line {clip.line}, {clip.output!r}: {clip.sentence}" for clip in self.failed[:_SHOWN]]
        if len(self.failed) > _SHOWN:
            lines.append(f"{'failed':<17} and {len(self.failed) - _SHOWN} more, all of them in the report")
        return "\n".join(lines)


class Tally:
    """Counts answers as they come.

    Attributes:
        answered: jobs that have been made or have failed.
    """

    def __init__(self, jobs: Sequence[Job], kept: int) -> None:
        """Count nothing yet.

        Args:
            jobs: that are to be made.
            kept: clips that need not.
        """
        self.answered = 0
        self._open = {job.line: job for job in jobs}
        self._kept, self._threads = kept, 0
        self._boxes: dict[str, BoxFigures] = {}
        self._failed: list[FailedClip] = []
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._frames = 0
        self._started = self._last = time.perf_counter()

    def start(self, threads: int) -> None:
        """Let the time of the run begin, with so many threads for a box."""
        self._threads, self._started = threads, time.perf_counter()

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.answered += 1
        self._last = time.perf_counter()
        outcome = answer.outcome
        job = self._open.pop(outcome.line)
        if outcome.failure:
            self._failed.append(FailedClip(job.line, job.output, outcome.failure))
            return
        if outcome.warnings:
            self._warnings[job.output] = outcome.warnings
        box = self._boxes.setdefault(answer.box, BoxFigures(answer.machine))
        box.clips += 1
        box.video_seconds += outcome.video_seconds
        box.seconds += outcome.seconds
        self._frames += outcome.frames

    def report(self, bundle: str, precision: str) -> BatchReport:
        """The report, in which a job without an answer has failed."""
        lost = f"Its box was lost {TRIES} times while it rendered this clip; the memory may be too small for it."
        failed = [*self._failed, *(FailedClip(job.line, job.output, lost) for job in self._open.values())]
        seconds = self._last - self._started
        clips = sum(box.clips for box in self._boxes.values())
        return BatchReport(
            bundle=bundle,
            precision=precision,
            clips=clips,
            kept=self._kept,
            failed=tuple(sorted(failed, key=lambda clip: clip.line)),
            warnings=self._warnings,
            frames=self._frames,
            video_seconds=sum(box.video_seconds for box in self._boxes.values()),
            seconds=seconds,
            clips_per_hour=3600.0 * clips / seconds if seconds > 0 else 0.0,
            threads=self._threads,
            boxes=tuple(self._boxes.values()),
        )
