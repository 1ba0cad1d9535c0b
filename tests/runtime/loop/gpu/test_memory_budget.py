from dataclasses import replace
from pathlib import Path

import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.models.presets import FLASHHEAD_LITE, RAP_1_3B, RAP_SMALL
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.manifest import EngineInfo, FileInfo, GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import BundleError, MemoryPlanError
from rap_edge.runtime.loop.gpu.memory_budget import MemoryPlan, SessionMemory, plan_memory, session_memory
from rap_edge.runtime.machine.system_memory import GIB, MIB, as_gib
from rap_edge.runtime.spec import ModelSpec

SPECS = [RAP_SMALL, FLASHHEAD_LITE, RAP_1_3B]
BYTES = st.integers(0, 1 << 36)


def manifest(spec: ModelSpec, precision: Precision = Precision.FP16, graph_bytes: int = 10 * MIB) -> Manifest:
    graphs = {name: GraphInfo(f"{name}.onnx", *ends) for name, ends in contract(spec, precision.state_dtype).items()}
    files = {graph.file: FileInfo(graph_bytes, "0" * 64) for graph in graphs.values()}
    return Manifest(spec, precision, graphs, files)


def test_audio_keys_and_values_of_flashhead_are_the_28_mib_that_are_known() -> None:
    # 30 layers of keys and values for 160 audio tokens of width 1536 in two bytes.
    assert session_memory(manifest(FLASHHEAD_LITE)).audio_state == 30 * 2 * 160 * 1536 * 2 == 28 * MIB + 128 * 1024


def test_weights_are_the_graphs_or_the_plans_that_stand_for_them() -> None:
    described = manifest(RAP_SMALL)
    assert plan_memory(described).weights == 5 * 10 * MIB
    files = {**described.files, "dit.plan": FileInfo(7 * MIB, "0" * 64)}
    plan = EngineInfo("dit.plan", "tensorrt", "11.4", "linux-x86_64", ("8.9",), "native", "0" * 64)
    assert plan_memory(replace(described, files=files), {"dit": plan}).weights == 7 * MIB


def test_activations_of_plans_are_what_their_builder_told() -> None:
    described = manifest(RAP_SMALL)
    plans = {
        name: EngineInfo(graph.file, "tensorrt", "11.4", "linux-x86_64", ("8.9",), "native", "0" * 64, {}, size * MIB)
        for size, (name, graph) in enumerate(described.graphs.items(), 1)
    }
    planned = plan_memory(described, plans)
    assert planned.activations == 5 * MIB
    assert planned.certain().total(1) == planned.weights + 5 * MIB + planned.session.total
    untold = {**plans, "dit": replace(plans["dit"], activation_bytes=0)}
    assert plan_memory(described, untold).activations == plan_memory(described).activations


def test_half_precision_halves_the_activations() -> None:
    for spec in SPECS:
        full, half = plan_memory(manifest(spec, Precision.FP32)), plan_memory(manifest(spec, Precision.FP16))
        assert full.activations == 2 * half.activations


def test_graphs_that_are_not_the_specs_are_refused() -> None:
    described = manifest(RAP_SMALL)
    with pytest.raises(BundleError, match="export the bundle again"):
        plan_memory(replace(described, graphs={**described.graphs, "dit": described.graphs["vae_encoder"]}))


def test_what_is_certain_is_less_than_what_is_estimated() -> None:
    planned = plan_memory(manifest(FLASHHEAD_LITE))
    assert planned.certain().total(1) == planned.weights + planned.session.total < planned.total(1)


def plan(weights: int, activations: int, session: int, precision: str = "fp16") -> MemoryPlan:
    return MemoryPlan("'x' in " + precision, precision, weights, activations, 0, SessionMemory(session, 0, 0, 0))


@given(BYTES, BYTES, st.integers(1, 1 << 34), BYTES)
def test_what_is_said_to_fit_fits_and_one_more_does_not(weights: int, acts: int, session: int, free: int) -> None:
    planned = plan(weights, acts, session)
    fit = planned.sessions(free)
    assert fit == 0 or planned.total(fit) <= free
    assert planned.total(fit + 1) > free


@given(BYTES, BYTES, st.integers(1, 1 << 34), BYTES, st.integers(1, 100))
def test_require_refuses_exactly_what_does_not_fit(weights: int, acts: int, session: int, free: int, many: int) -> None:
    planned = plan(weights, acts, session)
    if planned.sessions(free) >= many:
        planned.require(free, many)
    else:
        with pytest.raises(MemoryPlanError):
            planned.require(free, many)


@pytest.mark.parametrize(
    ("free", "sessions", "precision", "sentence"),
    [
        (
            5 * GIB,
            4,
            "fp16",
            "4 sessions of 'x' in fp16 need about 7.0 GiB and 5.0 GiB are free; open at most 2 sessions",
        ),
        (4 * GIB, 2, "fp16", "open at most 1 session on this GPU."),
        (2 * GIB, 1, "fp32", "1 session of 'x' in fp32 needs about 4.0 GiB and 2.0 GiB are free; export with"),
        (2 * GIB, 1, "fp16", "free the GPU's memory, choose one with more, or run on the CPU."),
    ],
)
def test_a_refusal_says_what_would_fit(free: int, sessions: int, precision: str, sentence: str) -> None:
    with pytest.raises(MemoryPlanError) as error:
        plan(2 * GIB, GIB, GIB, precision).require(free, sessions)
    assert sentence in str(error.value)


@given(st.integers(0, 1 << 40))
def test_sizes_are_written_for_people(count: int) -> None:
    number, unit = as_gib(count).split()
    scale = {"MiB": MIB, "GiB": GIB}[unit]
    assert abs(float(number) * scale - count) <= scale


def test_a_real_bundle_is_planned(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle"))
    graphs = sum((bundle.root / graph.file).stat().st_size for graph in bundle.manifest.graphs.values())
    assert plan_memory(bundle.manifest).weights == graphs
