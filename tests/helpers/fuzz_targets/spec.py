"""The spec of a model, as a bundle, a checkpoint or a file of the user's holds it: read, and if it is legal, run."""

from __future__ import annotations

import json
from typing import get_type_hints

import numpy as np
from helpers.bundles.tiny import TINY, TINY_CLEAN, TINY_GUIDED, tiny_engines
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines
from helpers.fuzz_targets.mutations import json_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st

from rap_edge.models.presets import PRESETS
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.manifest import FileInfo, GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.checks.bounds import Real, Whole
from rap_edge.runtime.engines.cpu_memory import plan_cpu_memory
from rap_edge.runtime.loop.gpu.memory_budget import plan_memory
from rap_edge.runtime.machine.system_memory import MIB
from rap_edge.runtime.session.overload import Overload
from rap_edge.runtime.spec import ModelSpec

_LARGEST = 64 * MIB
_MOST_STEPS = 20


def _read(text: str) -> None:
    spec = ModelSpec.from_json(text)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert all(0.0 <= t <= 1000.0 for t in spec.schedule())
    assert spec.with_steps(3).steps == 3
    assert spec.with_latency(spec.chunk_seconds).new_latents <= spec.new_latents
    graphs = {name: GraphInfo(f"{name}.onnx", *ends) for name, ends in contract(spec, "float32").items()}
    files = {graph.file: FileInfo(1, "0" * 64) for graph in graphs.values()}
    manifest = Manifest(spec, Precision.FP32, graphs, files)
    assert 0 < plan_memory(manifest).total(1) < 1 << 63
    plan = plan_cpu_memory(manifest)
    assert 0 < plan.total() < 1 << 63
    if plan.total() < _LARGEST and spec.steps <= _MOST_STEPS and "audio_value_00" in _names(graphs):
        _run(spec)


def _names(graphs: dict[str, GraphInfo]) -> set[str]:
    return {tensor.name for tensor in graphs["dit"].inputs}


def _run(spec: ModelSpec) -> None:
    portrait = np.full((*spec.image_size, 3), 90, np.uint8)
    engines = tiny_engines(spec) if spec.caches is None else causal_engines(spec)
    with Avatar(spec, engines, portrait, "fp32") as avatar:
        for overload in (None, Overload()):
            with avatar.session(overload=overload) as session:
                session.push(np.zeros(spec.chunk_samples + 1, np.float32))
                session.finish()
                for chunk in session.chunks():
                    assert chunk.frames.dtype == np.uint8


@st.composite
def _within_bounds(draw: st.DrawFn, spec: ModelSpec) -> str:
    """A spec with a few fields anywhere within their bounds, so that many are legal together."""
    data = spec.to_dict()
    for name in draw(st.lists(st.sampled_from(sorted(_BOUNDS)), min_size=1, max_size=4)):
        bounds = _BOUNDS[name]
        if isinstance(bounds, Whole):
            data[name] = draw(st.integers(bounds.low, min(bounds.high, bounds.low + 40)) | st.just(bounds.high))
        else:
            data[name] = draw(st.floats(bounds.low, bounds.high))
    data["alpha"] = draw(st.lists(st.floats(0, 1), min_size=data["num_layers"], max_size=data["num_layers"]))
    data["timesteps"] = sorted({*draw(st.lists(st.floats(0, 1000), min_size=1, max_size=6)), 0.0}, reverse=True)
    data["carry"], data["solver"] = draw(
        st.sampled_from([("clean", "renoise"), ("noisy", "euler"), ("clean", "euler")])
    )
    data["audio_branches"] = draw(st.sampled_from(["shared", "separate"]))
    return json.dumps(data)


_WAYS = [("clean", "renoise"), ("noisy", "euler"), ("clean", "euler")]
_BOUNDS = {
    name: bounds
    for name, hint in get_type_hints(ModelSpec, include_extras=True).items()
    if isinstance(bounds := getattr(hint, "__metadata__", [None])[0], Whole | Real)
    and name not in ("num_layers", "image_size", "sample_rate")
}
_TINY = (TINY, TINY_CLEAN, TINY_GUIDED)
SPEC = Target(
    "spec",
    st.one_of(
        [json_mutants(spec.to_dict()) for spec in (*PRESETS.values(), *_TINY, TINY_CAUSAL)]
        + [_within_bounds(spec) for spec in _TINY]
    ),
    _read,
)
