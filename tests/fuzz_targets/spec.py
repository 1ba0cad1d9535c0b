"""The spec of a model, as a bundle, a checkpoint or a file of the user's holds it."""

from __future__ import annotations

from hypothesis import strategies as st

from fuzz_targets.mutations import json_mutants
from fuzz_targets.target import Target
from rap_edge.runtime.contract import contract
from rap_edge.runtime.spec import PRESETS, ModelSpec


def _read(text: str) -> None:
    spec = ModelSpec.from_json(text)
    assert ModelSpec.from_json(spec.to_json()) == spec
    spec.schedule()
    contract(spec, "float32")
    spec.with_steps(3)
    spec.with_latency(spec.chunk_seconds)


SPEC = Target("spec", st.one_of([json_mutants(spec.to_dict()) for spec in PRESETS.values()]), _read)
