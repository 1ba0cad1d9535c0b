"""The building process: reads one job from stdin, writes progress and the outcome as JSON lines to stdout.

A process of its own gives each graph its own peak of memory and all of it back afterwards, survives TensorRT's crashes
with a sentence, and can be ended at any time. It stops when its stdin closes, so it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from importlib import import_module
from typing import Any, TextIO

from rap_edge.runtime.errors import RapEdgeError

from .build import build_plan_here
from .job import PlanJob

_LEAST_STEP = 0.002


def main() -> int:
    """Build the plan that stdin asks for; returns 0 unless it failed or was cancelled."""
    # Ctrl-C reaches the whole terminal; the parent decides, and tells by closing stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _own_stdout()
    job = PlanJob.from_dict(json.loads(sys.stdin.readline()))
    stopped = threading.Event()
    threading.Thread(target=_wait_for_end, args=(sys.stdin, stopped), daemon=True).start()
    try:
        result = build_plan_here(job, import_module(job.module), _Progress(answers), stopped.is_set)
    except RapEdgeError as error:
        _say(answers, {"error": str(error)})
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 1
    _say(answers, {"result": asdict(result)})
    return 0


class _Progress:
    """Passes progress on, but not more of it than can be seen."""

    def __init__(self, answers: TextIO) -> None:
        self._answers, self._last = answers, 0.0

    def __call__(self, fraction: float) -> None:
        if fraction - self._last >= _LEAST_STEP:
            self._last = fraction
            _say(self._answers, {"progress": fraction})


def _own_stdout() -> TextIO:
    """The real stdout for answers; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def _wait_for_end(stream: TextIO, stopped: threading.Event) -> None:
    while stream.readline():
        pass
    stopped.set()


if __name__ == "__main__":
    sys.exit(main())
