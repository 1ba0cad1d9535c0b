"""Choosing the observer of a graph, by what it leaves of the roll-out, and which activations are smoothed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rap_edge.runtime.engines.interface import Array
from rap_edge.runtime.reports.likeness import decibels

from ..observe.observers import OBSERVERS
from ..observe.ranges import extents_by
from ..quantize.variants import GraphPlan, Variants
from ..record.recording import CalibrationSet
from .sensitivity import Sensitivity

MOST_SMOOTHED = 6
LEAST_IMPROVEMENT_DB = 0.1


def sample_cases(recorded: CalibrationSet, graph: str, count: int) -> list[dict[str, Array]]:
    """Some of a graph's recorded inputs, one of every class of states first."""
    entries = recorded.of(graph)
    classes: dict[str, Any] = {}
    for entry in entries:
        classes.setdefault(entry.stratum.name, entry)
    rest = [entry for entry in entries if entry not in classes.values()]
    spread = rest[:: max(1, len(rest) // max(1, count))]
    return [recorded.load(entry) for entry in [*classes.values(), *spread][: max(count, len(classes))]]


def choose_observer(plan: GraphPlan, variants: Variants, sensitivity: Sensitivity) -> dict[str, float]:
    """PSNR in dB of the roll-out with every layer of the graph in 8 bits, by observer.

    A roll-out has the rare moments, a blink or a wide mouth, that a limit may cut off.
    """
    everything = {layer.node for layer in plan.layers}

    def by(observer: str) -> float:
        extents = extents_by(observer, plan.activations, variants.target)
        return decibels(sensitivity.of(plan.name, variants.engine(plan.name, everything, extents)))

    return {name: by(name) for name in OBSERVERS}


def choose_smoothed(plan: GraphPlan, variants: Variants, sensitivity: Sensitivity, best: float) -> list[dict[str, Any]]:
    """Try to smooth every dominated activation.

    Args:
        plan: with its observer's extents; nothing is smoothed yet.
        variants: of the plan's graph.
        sensitivity: measures what is tried.
        best: PSNR in dB of the roll-out with every layer in 8 bits and nothing smoothed.

    Returns:
        What was tried, with the PSNR before and after, and whether it was kept.
    """
    inputs = dict.fromkeys(layer.input for layer in plan.layers)
    dominated = [name for name in inputs if plan.activations[name].dominated]
    dominated.sort(key=lambda name: -plan.activations[name].channel_ratio)
    everything = {layer.node for layer in plan.layers}
    tried: list[dict[str, Any]] = []
    kept: tuple[str, ...] = ()
    for name in dominated[:MOST_SMOOTHED]:
        attempt = variants.with_plan(replace(plan, smoothed=(*kept, name)))
        reached = decibels(sensitivity.of(plan.name, attempt.engine(plan.name, everything)))
        better = reached > best + LEAST_IMPROVEMENT_DB
        activation = plan.activations[name]
        tried.append(
            {
                "graph": plan.name,
                "activation": name,
                "level_ratio": activation.level_ratio,
                "channel_ratio": activation.channel_ratio,
                "psnr_before": best,
                "psnr_after": reached,
                "kept": better,
            }
        )
        if better:
            best, kept = reached, (*kept, name)
    return tried
