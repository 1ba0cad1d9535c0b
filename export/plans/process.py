"""Builds one plan in a process of its own: passes progress on, cancels, and gives a result or a sentence."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rap_edge.runtime.errors import ExportError

from .job import PlanJob, PlanResult

_GRACE_SECONDS = 3.0
# By SIGKILL, which Windows has no name for.
_KILLED = -9
WORKER = (sys.executable, "-m", "rap_edge.export.plans.child")


def build_plan(job: PlanJob, on_progress: Callable[[float], None]) -> PlanResult:
    """Build one plan; Ctrl-C cancels the build and leaves no plan.

    Args:
        job: what to build.
        on_progress: takes the part that is done, 0..1.

    Raises:
        ExportError: the graph cannot be built, or is not what it claims to be; names the layer and the likely cure.
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            answer = _converse(process.stdin, process.stdout, job, on_progress)
        finally:
            _end(process)
        if "result" in answer:
            return PlanResult(**answer["result"])
        Path(job.plan).unlink(missing_ok=True)
        raise ExportError(answer.get("error") or _crash(job, process.returncode, log))


def _converse(
    commands: IO[str], answers: IO[str], job: PlanJob, on_progress: Callable[[float], None]
) -> dict[str, Any]:
    try:
        commands.write(json.dumps(job.to_dict()) + "\n")
        commands.flush()
    except BrokenPipeError:
        return {}
    for line in answers:
        answer = json.loads(line)
        if "progress" not in answer:
            return dict(answer)
        on_progress(answer["progress"])
    return {}


def _end(process: subprocess.Popen[str]) -> None:
    """Let the process end by itself, which it does when its stdin closes, or kill it after a while."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def _crash(job: PlanJob, status: int, log: IO[bytes]) -> str:
    if status == _KILLED:
        return (
            f"The build of {job.claim.graph!r} was killed, most likely for want of memory; free some, or build on a "
            "machine that has more."
        )
    log.seek(0)
    lines = log.read()[-4096:].decode("utf-8", errors="replace").strip().splitlines()
    last = lines[-1][:200] if lines else f"status {status}"
    return f"{job.module} crashed while building {job.claim.graph!r} ({last}); try another version of it."
