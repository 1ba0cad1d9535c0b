"""Choosing, graph by graph, the observer that the graph's own outputs agree with, and which activations to smooth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rap_edge.export.parity.compare import compare
from rap_edge.runtime.engines.interface import Array, Engine

from ..observe.observers import OBSERVERS
from ..observe.ranges import extents_by
from ..quantize.variants import GraphPlan, Variants
from ..record.recording import CalibrationSet
from ..record.running import outputs_of

CASES = 8
MOST_SMOOTHED = 6
LEAST_IMPROVEMENT_DB = 0.1


def sample_cases(recorded: CalibrationSet, graph: str, count: int = CASES) -> list[dict[str, Array]]:
    """Some of a graph's recorded inputs, one of every class of states first."""
    entries = recorded.of(graph)
    classes: dict[str, Any] = {}
    for entry in entries:
        classes.setdefault(entry.stratum.name, entry)
    rest = [entry for entry in entries if entry not in classes.values()]
    spread = rest[:: max(1, len(rest) // max(1, count))]
    return [recorded.load(entry) for entry in [*classes.values(), *spread][: max(count, len(classes))]]


def agreement(reference: Sequence[Mapping[str, Array]], got: Sequence[Mapping[str, Array]]) -> float:
    """Mean PSNR in dB of the outputs, but for the decoder's magnitude, which is one number."""
    values = [
        compare(expected, result[name]).psnr
        for case, result in zip(reference, got, strict=True)
        for name, expected in case.items()
        if expected.size > 1
    ]
    return float(np.mean(values))


def choose_observer(
    plan: GraphPlan, variants: Variants, base: Engine, cases: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """PSNR of the graph's outputs with every layer in 8 bits, by observer."""
    spec = variants.spec
    reference = outputs_of(spec, base, cases)
    everything = {layer.node for layer in plan.layers}
    return {
        name: agreement(
            reference,
            outputs_of(
                spec, variants.engine(plan.name, everything, extents_by(name, plan.activations, variants.target)), cases
            ),
        )
        for name in OBSERVERS
    }


def choose_smoothed(
    plan: GraphPlan, variants: Variants, base: Engine, cases: Sequence[Mapping[str, Array]]
) -> list[dict[str, Any]]:
    """Try to smooth every dominated activation; returns what was tried, with the PSNR before and after, and if kept."""
    spec = variants.spec
    inputs = dict.fromkeys(layer.input for layer in plan.layers)
    dominated = [name for name in inputs if plan.activations[name].dominated]
    dominated.sort(key=lambda name: -plan.activations[name].channel_ratio)
    reference = outputs_of(spec, base, cases) if dominated else []
    everything = {layer.node for layer in plan.layers}
    best = agreement(reference, outputs_of(spec, variants.engine(plan.name, everything), cases)) if dominated else 0.0
    tried, kept = [], plan.smoothed
    for name in dominated[:MOST_SMOOTHED]:
        attempt = variants.with_plan(replace(plan, smoothed=(*kept, name)))
        psnr = agreement(reference, outputs_of(spec, attempt.engine(plan.name, everything), cases))
        better = psnr > best + LEAST_IMPROVEMENT_DB
        activation = plan.activations[name]
        tried.append(
            {
                "graph": plan.name,
                "activation": name,
                "level_ratio": activation.level_ratio,
                "channel_ratio": activation.channel_ratio,
                "psnr_before": best,
                "psnr_after": psnr,
                "kept": better,
            }
        )
        if better:
            best, kept = psnr, (*kept, name)
    return tried
