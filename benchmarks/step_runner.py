"""Runs the commands of `gpu_steps` with a limit each, and keeps what they print."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpu_steps import ROOT, Step

TIMED_OUT = 124
_LAST_LINES = 12
_PROGRESS = re.compile(r"\[[#.]+\] +\d+ %")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed without its progress; of a failure the last lines alone.

    `status` is None of a command that was left out, whose `output` says why.
    """

    step: Step
    status: int | None
    seconds: float
    output: str


def left_out(step: Step, why: str) -> Outcome:
    """A command that was not run."""
    return Outcome(step, None, 0.0, why)


def run(step: Step, seconds: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a command in the repository's root, show what it prints, and end it with all that it started when its limit,
    or `seconds`, is over."""
    started = time.monotonic()
    limit = min(step.seconds or seconds, seconds)
    if step.waits_for and not _appears(ROOT / step.waits_for, limit):
        return left_out(step, f"Left out: {step.waits_for!r} was not there after {time.monotonic() - started:.0f} s.")
    limit -= time.monotonic() - started
    lines = []
    with subprocess.Popen(
        _words(step),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # it is a pipe
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), end)
        timer.start()
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                if not _PROGRESS.search(line):
                    lines.append(line.rstrip())
            process.wait()
        finally:
            timer.cancel()
    status = TIMED_OUT if late.is_set() else process.returncode
    kept = lines if status == 0 else lines[-_LAST_LINES:]
    return Outcome(step, status, time.monotonic() - started, "\n".join(kept))


def start(step: Step, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Run a command beside everything else; it may outlive this process, and its output goes into `log`."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["nice", "-n", "5", *_words(step)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    print(f"beside: {step} > {log}", flush=True)
    return process


def _words(step: Step) -> list[str]:
    """The command in this environment."""
    words = [sys.executable if word == "python" else word for word in step.words]
    beside = Path(sys.executable).parent / words[0]
    return [str(beside) if beside.exists() else words[0], *words[1:]]


def _appears(file: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return True
