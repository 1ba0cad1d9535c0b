"""Plans of the model that ships, in fp16 and int8, built by TensorRT-RTX without a GPU."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import onnx
import pytest
import tensorrt_rtx_targets
from helpers.bundles.half_bundle import copied, quantise_crudely, write_half_bundle
from helpers.bundles.small import AUDIO_ENCODER, SMALL_PRO, WAN
from helpers.bundles.small_causal import MIND, small_causal_networks

from rap_edge.export.cli import main
from rap_edge.export.exporter import ExportSettings
from rap_edge.export.plans import make_plans as plans
from rap_edge.export.plans import process as plan_builder
from rap_edge.export.plans.choice import choose_engines
from rap_edge.export.plans.make_plans import encoder_frames
from rap_edge.models.networks import NetworkConfigs, dit_config, random_networks
from rap_edge.models.presets import FLASHHEAD_LITE, RAP_SMALL
from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.manifest import GRAPH_NAMES, MANIFEST_NAME, graph_hash
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine.cuda_driver import query_driver

pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")


@pytest.fixture
def own(half: Path, tmp_path: Path) -> Path:
    """A bundle that the test may change."""
    return copied(half, tmp_path / "bundle")


@pytest.fixture(scope="module")
def turing(half: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, str]:
    """A bundle with plans for Turing, and what the command printed."""
    folder = copied(half, tmp_path_factory.mktemp("turing") / "bundle")
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["--bundle", str(folder), "--engine", "tensorrt-rtx", "--target", "75"]) == 0
    return Bundle.open(folder), printed.getvalue()


def content(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path).sha256 for path in folder.iterdir()}


def edit(folder: Path, change) -> None:
    data = json.loads((folder / MANIFEST_NAME).read_text())
    change(data)
    (folder / MANIFEST_NAME).unlink()
    (folder / MANIFEST_NAME).write_text(json.dumps(data))


def refused(folder: Path, capsys, *more: str) -> str:
    before = content(folder)
    assert main(["--bundle", str(folder), "--engine", "tensorrt-rtx", *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".part")] == []
    return captured.err.strip().splitlines()[-1]


def test_every_graph_gets_an_fp16_plan(own, capsys) -> None:
    assert main(["--bundle", str(own), "--engine", "tensorrt-rtx", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["capabilities"] == ["8.6", "8.9", "12.0", "12.1"]
    bundle = Bundle.open(own)
    bundle.verify()
    manifest = bundle.manifest
    assert manifest.engines.keys() == set(GRAPH_NAMES)
    for name, (engine,) in manifest.engines.items():
        assert engine.file == f"{name}.plan"
        assert (engine.backend, engine.platform) == ("tensorrt-rtx", "linux-x86_64")
        assert engine.compute_capabilities == ("8.6", "8.9", "12.0", "12.1")
        assert engine.graph_sha256 == graph_hash(manifest.files, manifest.graphs[name])
        assert engine.evidence["read_from"] == "program in the plan"
        assert report["graphs"][name]["peak_memory_bytes"] > 0
    evidence = {name: engines[0].evidence for name, engines in manifest.engines.items()}
    # Six self-attentions; two attentions per hybrid layer but the first and the last, whose alpha is 0 and 1.
    assert evidence["dit"]["attention"] == {"expected": 16, "fused": 16}
    assert evidence["audio_encoder"]["attention"] == {"expected": 3, "fused": 3}
    assert evidence["dit"]["products"]["float32"] == 2
    assert all(set(item["products"]) <= {"float16", "float32"} for item in evidence.values())


def test_every_graph_gets_an_int8_plan(half, tmp_path, capsys) -> None:
    folder = quantise_crudely(half, tmp_path / "nano-int8")
    assert main(["--bundle", str(folder), "--engine", "tensorrt-rtx", "--target", "86,89"]) == 0
    assert "16/16 fused" in capsys.readouterr().out
    for engines in Bundle.open(folder).manifest.engines.values():
        evidence = engines[0].evidence
        assert evidence["quantised"] >= evidence["products"]["int8"] > 0


@pytest.mark.slow
def test_every_graph_of_a_causal_model_gets_a_plan(tmp_path, capsys) -> None:
    # With two heads, TensorRT-RTX 1.7 has no kernel for the one token of a latent.
    mind = dataclasses.replace(MIND, dim=128, num_heads=4, past=7, audio_tokens=8)
    folder = write_half_bundle(small_causal_networks(mind=mind), tmp_path / "causal")
    assert main(["--bundle", str(folder), "--engine", "tensorrt-rtx", "--target", "89"]) == 0
    # Two layers, each over the past and over the sound.
    assert "4/4 fused" in capsys.readouterr().out
    assert Bundle.open(folder).manifest.engines.keys() == set(GRAPH_NAMES)


@pytest.mark.slow
def test_every_graph_of_flashhead_pro_gets_a_plan(tmp_path) -> None:
    # Heads that are wide enough to be fused.
    spec = dataclasses.replace(SMALL_PRO, hidden_dim=32, feature_width=32)
    configs = NetworkConfigs(
        dit=dit_config(spec, ffn_dim=64, freq_dim=8, audio_hidden=16, patch_side=2),
        vae=WAN,
        audio_encoder=dataclasses.replace(AUDIO_ENCODER, hidden_size=32),
    )
    folder = write_half_bundle(random_networks(spec, 0, configs=configs), tmp_path / "pro")
    assert main(["--bundle", str(folder), "--engine", "tensorrt-rtx", "--target", "89"]) == 0
    assert Bundle.open(folder).manifest.engines.keys() == set(GRAPH_NAMES)


@pytest.mark.skipif(bool(query_driver().devices), reason="there is a GPU")
def test_which_targets_run_here_is_tried_as_far_as_it_goes(half, monkeypatch, capsys) -> None:
    monkeypatch.setattr(tensorrt_rtx_targets, "TARGETS", ("current", "80"))
    assert tensorrt_rtx_targets.main(["--bundle", str(half)]) == 0
    current, ampere = capsys.readouterr().out.splitlines()[2:]
    assert current.startswith("| current | Building for the GPU that is there needs one and ")
    assert re.match(r"\| 80 \| \d+\.\d s \| (The CUDA driver cannot be used|GPU engines need) ", ampere)


def test_turing_on_request(turing) -> None:
    bundle, _ = turing
    evidence = bundle.manifest.engines["dit"][0].evidence
    assert evidence["attention"] == {"expected": 16, "fused": 16}
    assert "float32" not in evidence["products"]


def test_building_again_replaces_the_plans_and_keeps_those_of_others(own) -> None:
    (own / "dit.tensorrt-native-sm89.plan").write_bytes(b"other")
    other = {
        "file": "dit.tensorrt-native-sm89.plan",
        "backend": "tensorrt",
        "version": "11.4.0.106",
        "platform": "linux-x86_64",
        "compute_capabilities": ["8.9"],
        "profile": "native",
        "graph_sha256": "0" * 64,
        "evidence": {},
    }
    info = hash_file(own / other["file"])
    edit(own, lambda data: data["engines"].update(dit=[other]))
    edit(own, lambda data: data["files"].update({other["file"]: {"bytes": info.bytes, "sha256": info.sha256}}))
    for target in ("86", "89"):
        assert main(["--bundle", str(own), "--engine", "tensorrt-rtx", "--target", target]) == 0
    engines = Bundle.open(own).manifest.engines
    assert [item.file for item in engines["dit"]] == ["dit.tensorrt-native-sm89.plan", "dit.plan"]
    assert [item.compute_capabilities for item in engines["conditioner"]] == [("8.9",)]
    assert (own / other["file"]).read_bytes() == b"other"


def test_a_stealthy_change_of_the_graph_fails_by_layer_and_leaves_the_bundle_alone(own, capsys) -> None:
    edit(own, lambda data: data.update(islands=[i for i in data["islands"] if "time_embedding" not in i["node"]]))
    message = refused(own, capsys)
    assert "dit.time_embedding.0/Gemm_1" in message
    assert "computes in float32" in message


def test_int8_without_a_quantised_layer_is_refused(own, capsys) -> None:
    edit(own, lambda data: data.update(precision="int8"))
    assert "none of its graphs has a layer in it" in refused(own, capsys)


def test_a_graph_that_was_changed_is_refused(own, capsys) -> None:
    model = onnx.load(own / "dit.onnx")
    model.producer_name = "someone"
    (own / "dit.onnx").unlink()
    onnx.save(model, own / "dit.onnx")
    assert "'dit.onnx'" in refused(own, capsys)


def test_fp32_bundles_and_odd_options_are_sentences(own, capsys) -> None:
    assert "There is no target '90'" in refused(own, capsys, "--target", "90")
    assert "has no profiles" in refused(own, capsys, "--profile", "native")
    assert "leave --precision out" in refused(own, capsys, "--precision", "fp16")
    edit(own, lambda data: data.update(precision="fp32"))
    assert "--precision fp16" in refused(own, capsys)
    assert main(["--bundle", str(own)]) == 2
    assert "say which with --engine" in capsys.readouterr().err
    assert main(["--target", "86"]) == 2
    assert "say which with --engine" in capsys.readouterr().err
    edit(own, lambda data: data.update(precision="fp16"))
    assert main(["--bundle", str(own), "--engine", "tensorrt"]) == 2
    assert "pip install 'rap-edge[tensorrt]'" in capsys.readouterr().err


def test_a_builder_that_crashes_is_a_sentence(own, capsys, monkeypatch) -> None:
    code = "import os, sys; sys.stderr.write('cask: bad tactic'); sys.stderr.flush(); os.abort()"
    monkeypatch.setattr(plan_builder, "WORKER", (sys.executable, "-c", code))
    assert "crashed while building 'audio_encoder' (cask: bad tactic)" in refused(own, capsys)
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(plan_builder, "WORKER", (sys.executable, "-c", kill))
    assert "want of memory" in refused(own, capsys)


def test_ctrl_c_cancels_the_build_and_leaves_the_bundle_alone(own) -> None:
    before = content(own)
    code = "import sys; from rap_edge.export.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--bundle", str(own), "--engine", "tensorrt-rtx"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # The first plan has been written: the next build is under way.
    while not list(own.parent.glob(".bundle.*.part/audio_encoder.plan")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.strip().splitlines()[-1] == "rap-export: Stopped; nothing was written."
    assert content(own) == before
    assert [path.name for path in own.parent.iterdir()] == ["bundle"]


def test_the_worker_stops_by_itself_when_nobody_listens(own, tmp_path) -> None:
    manifest = Bundle.open(own).manifest
    choice = choose_engines("tensorrt-rtx", "86", None, "fp16")
    job = plans.plan_job(own, manifest, "dit", plans.read_claims(own, manifest)["dit"], choice)
    job = dataclasses.replace(job, plan=str(tmp_path / "dit.plan"))
    process = subprocess.Popen(plan_builder.WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(job.to_dict()) + "\n")
    process.stdin.close()
    assert process.wait(60) == 1
    process.stdout.close()
    assert not (tmp_path / "dit.plan").exists()


@pytest.mark.slow
def test_an_export_builds_engines_in_the_same_go(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("rap_edge.export.exporter.ExportSettings", partial(ExportSettings, chunks=2))
    folder = tmp_path / "bundle"
    arguments = ["--precision", "fp16", "--engine", "tensorrt-rtx", "--target", "89", "-o", str(folder)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "12/12 fused" in printed
    assert "roll-out of 2 chunks" in printed
    bundle = Bundle.open(folder)
    bundle.verify()
    assert bundle.manifest.engines["dit"][0].compute_capabilities == ("8.9",)
    assert "dit.plan" in bundle.manifest.files


def test_the_encoder_is_built_for_the_frames_that_the_runtime_gives_it() -> None:
    assert encoder_frames(RAP_SMALL) == (33, 33)
    assert encoder_frames(FLASHHEAD_LITE) == (9, 33)


def test_the_table_names_every_plan(turing) -> None:
    bundle, text = turing
    assert [line.split()[0] for line in text.splitlines()[1:6]] == list(bundle.manifest.graphs)
    assert "compute capability 7.5" in text


def test_a_quantised_bundle_that_computes_in_fp32_is_for_the_cpu(own) -> None:
    manifest = Bundle.open(own).manifest
    wide = dataclasses.replace(manifest.graphs["conditioner"].outputs[0], dtype="float32")
    graph = dataclasses.replace(manifest.graphs["conditioner"], outputs=(wide,))
    changed = dataclasses.replace(manifest, precision=Precision.INT8, graphs={**manifest.graphs, "conditioner": graph})
    with pytest.raises(ExportError, match="This int8 bundle computes in float32, for CPUs"):
        plans.read_claims(own, changed)
