"""The file that says which clips to make: one JSON object on every line, written by anybody.

In: the file, and the folder that sound and pictures may come from. Out: what to render, with the files' real places;
else an error that names the line. Files that are missing are for the clip to report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rap_edge.runtime.checks.bounds import SEEDS, InsidePath, Text
from rap_edge.runtime.checks.fields import FieldError, record_from, refuse_unknown_keys
from rap_edge.runtime.checks.regular_file import open_regular, real_path, reason
from rap_edge.runtime.errors import FleetError
from rap_edge.runtime.outputs.sinks import SINKS, UNNAMED

_MAX_JOBS = 100_000
_MAX_LINE_BYTES = 16_384
_File = Annotated[str, Text(4096)]


@dataclass(frozen=True)
class Line:
    """A line of the file.

    Attributes:
        audio: a sound file, below the folder of inputs; a relative path is relative to it.
        output: the video, below the folder of outputs; None takes the name of the sound.
        portrait: a picture, likewise; None takes the bundle's own.
        seed: of the noise.
    """

    audio: _File
    output: Annotated[str, InsidePath("the folder of outputs")] | None = None
    portrait: _File | None = None
    seed: Annotated[int, SEEDS] = 0


@dataclass(frozen=True)
class Job:
    """A clip to make.

    Attributes:
        line: of the file, from 1.
        audio, portrait: real paths; None is the bundle's own portrait.
        output: relative to the folder of outputs.
        seed: of the noise.
    """

    line: int
    audio: str
    portrait: str | None
    output: str
    seed: int


def read_jobs(file: str | Path, inputs: str | Path | None = None) -> list[Job]:
    """Read the whole file.

    Args:
        file: JSON lines, see `Line`.
        inputs: the folder of inputs; None is the file's own.

    Raises:
        FleetError: it cannot be read, a line is no job, a path leaves its folder, two clips have one name, there are
            too many, or none.
    """
    folder = Path(file).parent if inputs is None else Path(inputs)
    jobs: list[Job] = []
    lines: dict[str, int] = {}
    for number, text in _lines(file):
        try:
            job = _job(number, text, real_path(folder))
        except (FieldError, OSError) as error:
            raise FleetError(f"Line {number} of {str(file)!r} is no job: {error}; see docs/fleet.md.") from None
        # On some file systems a.mp4 is A.mp4.
        first = lines.setdefault(job.output.casefold(), number)
        if first != number:
            raise FleetError(
                f"Lines {first} and {number} of {str(file)!r} both make {job.output!r}; give one another 'output'."
            )
        jobs.append(job)
    if not jobs:
        raise FleetError(f"{str(file)!r} holds no jobs; write one JSON object on every line, see docs/fleet.md.")
    return jobs


def _lines(file: str | Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open_regular(real_path(file)) as stream:
            for number in range(1, _MAX_JOBS + 2):
                text = stream.readline(_MAX_LINE_BYTES + 1)
                if not text:
                    return
                if len(text) > _MAX_LINE_BYTES:
                    raise FleetError(f"Line {number} of {str(file)!r} is longer than {_MAX_LINE_BYTES} bytes.")
                if number > _MAX_JOBS:
                    raise FleetError(f"{str(file)!r} has more than {_MAX_JOBS} lines; split it.")
                if text.strip():
                    yield number, text
    except OSError as error:
        raise FleetError(
            f"The jobs {str(file)!r} cannot be read ({reason(error)}); pass a file of JSON lines."
        ) from None


def _job(number: int, text: bytes, folder: str) -> Job:
    """A line as a job; raises `FieldError`, or `OSError` for a name that no file can have."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise FieldError("it is not valid JSON") from None
    line = record_from(Line, data)
    refuse_unknown_keys(Line, data)
    output = line.output or f"{Path(line.audio).stem}{UNNAMED}"
    if fault := InsidePath("the folder of outputs").fault(output):
        raise FieldError(f"output {fault}")
    if Path(output).suffix.lower() not in SINKS:
        raise FieldError(f"output must end in one of {', '.join(SINKS)}, not {output!r}")
    return Job(
        number,
        _within(folder, line.audio, "audio"),
        None if line.portrait is None else _within(folder, line.portrait, "portrait"),
        output,
        line.seed,
    )


def _within(folder: str, path: str, field: str) -> str:
    """The real place of a path, relative to `folder`, which must lie below it, links seen through."""
    place = real_path(os.path.join(folder, path))
    if os.path.commonpath((place, folder)) != folder or place == folder:
        raise FieldError(f"{field} must lie in {folder!r}, which --inputs names, and {path!r} does not")
    return place
