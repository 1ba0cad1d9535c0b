"""`rap-fleet render`: thousands of clips from a file of jobs; what is done stays done, and what fails is told."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.pending_file import PendingFile, remove_left_behind
from rap_edge.runtime.checks.bounds import Real, Whole, argument
from rap_edge.runtime.checks.needs import require
from rap_edge.runtime.cli.arguments import add_model, add_portrait_use, add_threads, require_model
from rap_edge.runtime.cli.overwriting import refuse_to_overwrite
from rap_edge.runtime.cli.progress import Progress, say
from rap_edge.runtime.engines.engine_set import find_set, open_model, set_needs
from rap_edge.runtime.errors import FleetError
from rap_edge.runtime.machine.available import available_cores
from rap_edge.runtime.spec import STEPS

from ..cluster import opened_cluster, ray_need
from ..command import Command
from ..render.clip_renderer import BoxSettings
from ..render.done import DONE_NAME, Done
from ..render.jobs import Job, read_jobs
from ..render.pipeline import cluster_machines, render_all
from ..render.report import BatchReport, Tally
from ..render.sizing import Machine, Sizing, memory_need, sizing

BOXES, GPU_SHARE = Whole(1, 4096), Real(0.01, 16.0)


def _arguments(made: argparse.ArgumentParser) -> None:
    add_model(made)
    made.add_argument("--jobs", metavar="JSONL", required=True, help="what to make, a JSON object on every line")
    made.add_argument(
        "--out", metavar="DIR", required=True, help="folder of the videos, of their report and what is done"
    )
    made.add_argument(
        "--inputs", metavar="DIR", help="folder that sound and portraits may come from (default: that of --jobs)"
    )
    add_portrait_use(made)
    made.add_argument("--steps", type=argument(STEPS), metavar="N", help="denoise steps per chunk")
    made.add_argument(
        "--boxes",
        type=argument(BOXES),
        metavar="N",
        help="sets of engines that render at the same time (default: as many as cores, memory and GPUs hold)",
    )
    add_threads(made)
    made.add_argument(
        "--gpu-share", type=argument(GPU_SHARE), metavar="F", help="GPUs of a box (default: 1 with plans)"
    )
    made.add_argument(
        "--address", metavar="RAY", help="a cluster that is there, as Ray names it (default: this machine alone)"
    )
    made.add_argument("--report", metavar="JSON", help="where the report is written (default: report.json in --out)")
    made.set_defaults(check=lambda arguments: require_model(made, arguments))


def _run(arguments: argparse.Namespace) -> int:
    arguments.check(arguments)
    bundle, engine = open_model(arguments.bundle, arguments.engine)
    # What a machine of a cluster lacks it says itself.
    here = arguments.address is None and not arguments.fallback
    require([ray_need, *(set_needs(bundle, engine) if here else ())])
    jobs = read_jobs(arguments.jobs, arguments.inputs)
    settings = BoxSettings(
        bundle=os.path.abspath(bundle.root),
        output=os.path.abspath(arguments.out),
        engine=engine,
        fallback=arguments.fallback,
        steps=arguments.steps,
        crop=arguments.crop,
        strict_portrait=arguments.strict_portrait,
    )
    report = Path(arguments.report or Path(arguments.out, "report.json"))
    _check(arguments, bundle, jobs, report)
    done = Done(bundle, settings)
    todo = [job for job in jobs if job not in done]
    tally = Tally(todo, kept=len(jobs) - len(todo))
    if todo:
        share = arguments.gpu_share or float(bool(find_set(bundle, engine).plans))
        try:
            _render(arguments, bundle, settings, share, todo, tally, done)
        finally:
            remove_left_behind(Path(settings.output, job.output) for job in todo)
    return _told(tally.report(str(bundle.root), str(bundle.manifest.precision)), report)


def _check(arguments: argparse.Namespace, bundle: Bundle, jobs: Sequence[Job], report: Path) -> None:
    """Refuse what would fail for every clip, or replace what is read."""
    if bundle.manifest.golden.portrait is None and (bare := next((job for job in jobs if job.portrait is None), None)):
        raise FleetError(
            f"Line {bare.line} of {arguments.jobs!r} names no portrait, and the bundle brings none; add 'portrait'."
        )
    read = {path for job in jobs for path in (job.audio, job.portrait)} | {arguments.jobs}
    written = [*(Path(arguments.out, job.output) for job in jobs), report, Path(arguments.out, DONE_NAME)]
    refuse_to_overwrite(written, bundle, read)


def _render(
    arguments: argparse.Namespace,
    bundle: Bundle,
    settings: BoxSettings,
    share: float,
    todo: Sequence[Job],
    tally: Tally,
    done: Done,
) -> None:
    by_line = {job.line: job for job in todo}
    boxes, threads = arguments.boxes, arguments.threads
    cores = available_cores()
    say("rap-fleet: starting Ray ..." if arguments.address is None else "rap-fleet: joining the cluster ...")
    # One more than the boxes can take, for what Ray runs itself.
    with opened_cluster(arguments.address, max(cores, (boxes or 1) * (threads or 1)) + 1):
        found = cluster_machines()
        if arguments.address is None:
            found = [replace(found[0], cores=cores)]
        size = sizing(found, memory_need(bundle.manifest), boxes, threads, share)
        _say_what_is_there(found, size, share)
        tally.start(size.threads)
        with Progress("rendering", len(todo), "clips") as progress:
            for answer in render_all(todo, replace(settings, threads=size.threads), size, share):
                tally.add(answer)
                if not answer.outcome.failure:
                    done.add(by_line[answer.outcome.line])
                progress.update(tally.answered)


def _say_what_is_there(found: Sequence[Machine], size: Sizing, share: float) -> None:
    say(f"rap-fleet: {size.boxes} {'box' if size.boxes == 1 else 'boxes'}, threads of each: {size.threads}.")
    if not any(machine.cores >= size.threads and machine.gpus >= share for machine in found):
        gpus = f" and {share:g} GPUs" if share else ""
        say(f"rap-fleet: No machine of the cluster has {size.threads} cores{gpus} for a box yet; waiting for one.")


def _told(report: BatchReport, path: Path) -> int:
    try:
        with PendingFile(path) as file:
            file.write(report.to_json().encode() + b"\n")
            file.commit()
    finally:
        print(report.to_table())
    return 1 if report.failed else 0


COMMAND = Command(
    "Render many clips, on this machine or a cluster; the same command goes on where it was stopped.",
    _arguments,
    _run,
    "Stopped; finished clips stay, and the same command goes on with the others.",
)
