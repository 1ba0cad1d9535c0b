"""Which clips need not be made again: those of the same job, model and settings, whose videos are as they were left."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.journal import Journal, key_of

from .clip_renderer import BoxSettings
from .jobs import Job

DONE_NAME = "rap-fleet.jsonl"


class Done:
    """The record of finished clips, a file in the folder of outputs."""

    def __init__(self, bundle: Bundle, settings: BoxSettings) -> None:
        """Read it; what an earlier run with another model or other settings made is not done.

        Raises:
            OutputError: the folder cannot be made, or the record not be read.
        """
        self._folder = Path(settings.output)
        self._journal = Journal(self._folder / DONE_NAME)
        # Threads change how long it takes; the folder, which is where this lies, may be moved.
        made_by = replace(settings, bundle="", output="", threads=None)
        self._model = key_of(bundle.manifest.to_json(), asdict(made_by))

    def __contains__(self, job: Job) -> bool:
        """Whether it is in the record, and the video the one that was recorded."""
        state = _state(self._folder / job.output)
        return state is not None and self._journal.found(self._key(job)) == state

    def add(self, job: Job) -> None:
        """Record a clip that has just been made.

        Raises:
            OutputError: the record cannot be written.
        """
        self._journal.put(self._key(job), _state(self._folder / job.output))

    def _key(self, job: Job) -> str:
        sources = [None if path is None else _state(Path(path)) for path in (job.audio, job.portrait)]
        return key_of(self._model, asdict(replace(job, line=0)), sources)


def _state(path: Path) -> list[int] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
