"""What a bundle takes on the processor is added up before anything is allocated."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny import TINY, TINY_CLEAN, TINY_GUIDED, tiny_engines
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines

from rap_edge.models.presets import FLASHHEAD_LITE, RAP_SMALL
from rap_edge.runtime import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, FileInfo, GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.engines.cpu_memory import plan_cpu_memory
from rap_edge.runtime.errors import MemoryPlanError
from rap_edge.runtime.loading import load_engines
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.on_host import host_loop
from rap_edge.runtime.machine.system_memory import GIB, MIB
from rap_edge.runtime.spec import ModelSpec


def manifest(spec: ModelSpec, precision: Precision = Precision.FP32, graph_bytes: int = 10 * MIB) -> Manifest:
    graphs = {name: GraphInfo(f"{name}.onnx", *ends) for name, ends in contract(spec, precision.state_dtype).items()}
    return Manifest(spec, precision, graphs, {graph.file: FileInfo(graph_bytes, "0" * 64) for graph in graphs.values()})


@pytest.mark.parametrize("spec", [TINY, TINY_CLEAN, TINY_GUIDED, TINY_CAUSAL], ids=lambda spec: spec.name)
def test_a_session_takes_what_is_planned(spec: ModelSpec) -> None:
    spec = replace(spec, image_size=512, latent_channels=64, color_match=0.0)
    if spec.caches is not None:
        spec = replace(spec, caches=replace(spec.caches, past_latents=4096, decoder_state=1 << 20, audio_state=1 << 18))
    engines = (causal_engines if spec.caches else tiny_engines)(spec)
    reference = encode_reference(spec, engines["vae_encoder"], np.zeros((512, 512, 3), np.uint8))
    tracemalloc.start()
    try:
        loop = host_loop(engines, spec, reference, 0)
        held = [loop.render(spec.steps) for _ in range(2)][-1:]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held
    assert plan_cpu_memory(manifest(spec)).session == pytest.approx(taken, rel=0.05)


def test_weights_count_once_and_sessions_each() -> None:
    plan = plan_cpu_memory(manifest(RAP_SMALL))
    assert plan.weights == 50 * MIB
    assert plan.total(3) - plan.total(2) == plan.session
    assert plan.total() < 150 * MIB
    assert plan_cpu_memory(manifest(FLASHHEAD_LITE)).total() < GIB


def test_a_refusal_says_what_is_needed_and_what_is_there() -> None:
    plan = plan_cpu_memory(manifest(RAP_SMALL))
    plan.require(plan.total())
    with pytest.raises(MemoryPlanError, match=r"'rap-small' in fp32 needs at least \d+ MiB of memory and 10 MiB are"):
        plan.require(10 * MIB)


def test_small_graphs_that_state_huge_pictures_are_refused_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, huge = write_tiny_bundle(tmp_path / "bundle"), replace(TINY, image_size=8192)
    stated = replace(Bundle.open(root).manifest, spec=huge, graphs=manifest(huge).graphs)
    (root / MANIFEST_NAME).write_text(stated.to_json())
    monkeypatch.setattr("rap_edge.runtime.engines.cpu_memory.available_memory", lambda: (16 * GIB, 12 * GIB))
    tracemalloc.start()
    try:
        with pytest.raises(MemoryPlanError, match=r"at least 3\d\.\d GiB of memory and 12\.0 GiB are free"):
            load_engines(Bundle.open(root))
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_full_memory_is_one_sentence_in_the_library_and_in_the_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    bundle = write_tiny_bundle(tmp_path / "bundle")
    monkeypatch.setattr("rap_edge.runtime.avatar.portrait_for", full)
    with pytest.raises(MemoryPlanError, match="memory of this machine is full"):
        Avatar.open(bundle)
    assert exit_status("rap-x", full, "Stopped.") == 2
    assert capsys.readouterr().err.startswith("rap-x: The memory of this machine is full;")
