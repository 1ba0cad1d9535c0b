"""The first steps of a calibration: the recorded set, and what the activations look like over it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rap_edge.export.stages import StageProgress
from rap_edge.runtime.bundle.contract import runs_per_chunk
from rap_edge.runtime.machine.available import available_cores

from ..choose.observer import choose_observer, choose_smoothed
from ..observe.ranges import Activation, extents_by, observe
from ..quantize.variants import GraphPlan
from ..record.recording import SET_NAME, CalibrationSet, open_set, record
from .context import Context


def get_set(context: Context, given: Path | None) -> CalibrationSet:
    """The recorded set: the given one, or the work folder's, recorded if it is not there.

    Raises:
        CalibrationError: the given set cannot be read or belongs to another bundle.
    """
    if given is not None:
        return open_set(given, context.bundle.manifest)
    folder = context.work / "set"
    if (folder / SET_NAME).is_file():
        return open_set(folder, context.bundle.manifest)
    return record(context.bundle.manifest, context.base, context.material, folder, context.stages)


def observe_ranges(context: Context, recorded: CalibrationSet) -> None:
    """Give every plan its activations, and extents by min-max."""
    with context.stages.stage("activation ranges", len(context.plans), "graphs") as progress:
        for name, plan in context.plans.items():
            if not plan.layers or not recorded.of(name):
                progress.advance(1)
                continue
            stored = context.journal.get(f"ranges {name}", partial(_ranges, context, plan, recorded, progress))
            activations = {value: Activation.from_dict(item) for value, item in stored.items()}
            context.plans[name] = _observed_by("min-max", replace(plan, activations=activations), context)


def choose_observers(context: Context) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give every plan of a graph that a chunk runs its observer and what is smoothed.

    Returns:
        PSNR of the roll-out by graph and observer, and the activations whose smoothing was tried.
    """
    scores: dict[str, Any] = {}
    smoothing: list[dict[str, Any]] = []
    runs = runs_per_chunk(context.spec)
    with context.stages.stage("observers", len(context.plans), "graphs") as progress:
        for name, plan in list(context.plans.items()):
            progress.note(name)
            if plan.activations and runs[name]:
                found = context.journal.get(f"observer {name}", partial(_observers, context, plan))
                best = max(found, key=lambda observer: found[observer])
                context.plans[name] = _observed_by(best, plan, context)
                tried = context.journal.get(f"smoothing {name}", partial(_smoothing, context, name, found[best]))
                kept = tuple(item["activation"] for item in tried if item["kept"])
                context.plans[name] = replace(context.plans[name], smoothed=kept)
                scores[name] = {"chosen": best, "psnr": found}
                smoothing += tried
            progress.advance(1)
    return scores, smoothing


def _observed_by(observer: str, plan: GraphPlan, context: Context) -> GraphPlan:
    return replace(plan, observer=observer, extents=extents_by(observer, plan.activations, context.target))


def _ranges(context: Context, plan: GraphPlan, recorded: CalibrationSet, progress: StageProgress) -> dict[str, Any]:
    threads = context.settings.threads or available_cores()
    found = observe(plan.path, plan.layers, recorded, plan.name, threads, progress)
    return {value: activation.to_dict() for value, activation in found.items()}


def _observers(context: Context, plan: GraphPlan) -> dict[str, float]:
    return choose_observer(plan, context.variants, context.sensitivity)


def _smoothing(context: Context, name: str, best: float) -> list[dict[str, Any]]:
    return choose_smoothed(context.plans[name], context.variants, context.sensitivity, best)
