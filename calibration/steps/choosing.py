"""The middle steps of a calibration: what layers save, what they harm, and which of them are in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from time import thread_time

import numpy as np

from rap_edge.runtime.bundle.contract import runs_per_chunk
from rap_edge.runtime.bundle.journal import key_of
from rap_edge.runtime.engines.interface import Engine

from ..choose.cost_model import Work, half_seconds, saving
from ..choose.observer import sample_cases
from ..choose.search import Candidate, Found, search
from ..choose.timing import Gain, kinds, measure_kind
from ..judge.quality import Bytes, psnr, talk_chunks, talk_frames
from ..judge.race import side_by_side
from ..observe.layers import Layer
from ..quantize.variants import nodes_of, shapes_of
from ..record.recording import CalibrationSet
from .context import Context


def measure_gains(context: Context, recorded: CalibrationSet) -> dict[str, Gain]:
    """Seconds per chunk that 8 bits save, for every layer of the graphs that a chunk runs, by key."""
    runs = runs_per_chunk(context.spec)
    shapes = {name: shapes_of(plan.path) for name, plan in context.plans.items()}
    groups = [
        kind
        for name, plan in context.plans.items()
        if runs[name] and plan.activations
        for kind in kinds(plan.layers, shapes[name])
    ]
    gains: dict[str, Gain] = {}
    with context.stages.stage("time per layer", len(groups), "kinds") as progress:
        for kind in groups:
            progress.note(kind[0].node)
            if context.target.measured:
                key = f"time {kind[0].key} {len(kind)}"
                found = Gain(**context.journal.get(key, partial(_measure, context, recorded, kind)))
                gains |= {layer.key: found for layer in kind}
            else:
                gains |= {layer.key: _model(context, layer, shapes[layer.graph]) for layer in kind}
            progress.advance(1)
    return gains


def measure_damages(context: Context, gains: Mapping[str, Gain]) -> dict[str, float]:
    """Mean squared difference of the roll-out that each layer that pays causes alone, by key."""
    layers = [layer for plan in context.plans.values() for layer in plan.layers]
    paying = [layer for layer in layers if layer.key in gains and gains[layer.key].pays]
    damages: dict[str, float] = {}
    with context.stages.stage("sensitivity per layer", len(paying), "layers") as progress:
        for layer in paying:
            progress.note(layer.node)
            damages[layer.key] = context.journal.get(f"damage {layer.key}", partial(_damage, context, layer))
            progress.advance(1)
    return damages


def find_layers(
    context: Context,
    gains: Mapping[str, Gain],
    damages: Mapping[str, float],
    reference: Mapping[str, Engine],
    margin: float,
) -> Found:
    """Search on the short clip, against `reference` in fp32, for a set that holds the gate with `margin` dB to spare.

    Raises:
        CalibrationError: no layer pays, or none holds the gate.
    """
    trial = _Trial(context, gains, reference)
    with context.stages.stage("search", 8, "sets") as progress:

        def evaluate(keys: Sequence[str]) -> tuple[float, float]:
            progress.note(f"{len(keys)} layers")
            quality, share = context.journal.get(f"search {key_of(sorted(keys))}", partial(trial.of, keys))
            progress.advance(1)
            return quality, share

        candidates = [Candidate(key, gains[key].seconds, damage) for key, damage in damages.items()]
        return search(candidates, evaluate, context.settings.gates.psnr, margin)


class _Trial:
    """PSNR and time of a set of layers on the short clip."""

    def __init__(self, context: Context, gains: Mapping[str, Gain], reference: Mapping[str, Engine]) -> None:
        self._context, self._gains, self._reference = context, gains, reference
        self._chunks = talk_chunks(context.spec, context.material.short)
        self._expected: Bytes | None = None

    def of(self, keys: Sequence[str]) -> list[float]:
        context = self._context
        if self._expected is None:
            self._expected = talk_frames(context.spec, self._reference, context.material.short, self._chunks)
        measured = context.target.measured
        base: Mapping[str, Engine] = context.single if measured else context.base
        engines = dict(base)
        for name, plan in context.plans.items():
            if nodes := nodes_of(plan.layers, keys):
                engines[name] = context.variants.engine(name, nodes, threads=1 if measured else None)
        if measured:
            frames, time = self._beside(base, engines)
        else:
            frames = talk_frames(context.spec, engines, context.material.short, self._chunks)
            total = modelled_seconds(context)
            time = (total - sum(self._gains[key].seconds for key in keys)) / total
        return [psnr(frames, self._expected), time]

    def _beside(self, base: Mapping[str, Engine], engines: Mapping[str, Engine]) -> tuple[Bytes, float]:
        """Frames, and the CPU time of a chunk as a share of the base's, which is rendered in turn."""
        talk = self._context.material.short
        frames: list[Bytes] = []
        laps = side_by_side(self._context.spec, (base, engines), talk, self._chunks, thread_time, frames.append)
        return np.concatenate(frames), min(laps[1]) / min(laps[0])


def _damage(context: Context, layer: Layer) -> float:
    return context.sensitivity.of(layer.graph, context.variants.engine(layer.graph, {layer.node}))


def modelled_seconds(context: Context) -> float:
    """Seconds per chunk of all layers in fp16, by the cost model."""
    total = 0.0
    for name, plan in context.plans.items():
        shapes = shapes_of(plan.path)
        total += runs_per_chunk(context.spec)[name] * sum(half_seconds(_work(layer, shapes)) for layer in plan.layers)
    return total


def _measure(context: Context, recorded: CalibrationSet, kind: Sequence[Layer]) -> dict[str, float]:
    name = kind[0].graph
    inputs = sample_cases(recorded, name, 1)[-1]
    runs, seconds = runs_per_chunk(context.spec)[name], context.settings.timing_seconds
    return asdict(measure_kind(context.variants, context.plans[name], kind, inputs, runs, seconds))


def _model(context: Context, layer: Layer, shapes: Mapping[str, tuple[int, ...] | None]) -> Gain:
    readers = len(context.plans[layer.graph].readers(layer.input))
    seconds = saving(_work(layer, shapes), context.target.dtype, readers)
    return Gain(seconds * runs_per_chunk(context.spec)[layer.graph], 0.0, 1)


def _work(layer: Layer, shapes: Mapping[str, tuple[int, ...] | None]) -> Work:
    activations, outputs = (int(np.prod(shapes.get(name) or (0,))) for name in (layer.input, layer.output))
    return Work(layer.products, activations, layer.weights, outputs)
