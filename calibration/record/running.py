"""Running one graph on recorded inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rap_edge.runtime.bundle.contract import FREE_FRAMES, FREE_LATENTS
from rap_edge.runtime.engines.interface import Array, Engine, Execution
from rap_edge.runtime.spec import ModelSpec


def bound(spec: ModelSpec, engine: Engine, inputs: Mapping[str, Array]) -> Execution:
    """The engine with these inputs in its buffers, ready to run."""
    frames = len(inputs["frames"]) if "frames" in inputs else spec.chunk_frames
    sizes = {FREE_FRAMES: frames, FREE_LATENTS: (frames - 1) // spec.temporal_compression + 1}
    execution = engine.prepare(sizes=sizes)
    for tensor in engine.graph.inputs:
        execution.buffers[tensor.name][...] = inputs[tensor.name]
    return execution


def outputs_of(spec: ModelSpec, engine: Engine, cases: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Outputs of every case by name."""
    found = []
    for inputs in cases:
        execution = bound(spec, engine, inputs)
        execution.run()
        found.append({tensor.name: execution.buffers[tensor.name].copy() for tensor in engine.graph.outputs})
    return found
