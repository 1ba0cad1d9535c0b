import dataclasses
import importlib.util
import json
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from helpers.bundles.small import SMALL, drawn

from rap_edge.export.bench.bench import bench, table
from rap_edge.export.bench.cli import main
from rap_edge.export.capture.flops import chunk_flops
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.engines.registry import DEFAULT


@pytest.fixture
def bundle(small_bundle: str) -> str:
    return small_bundle


def test_the_same_chunks_run_on_pytorch_and_on_the_graphs(bundle) -> None:
    checkpoint = Path(bundle).with_name("checkpoint")
    result = bench(bundle, ("torch",), chunks=1, rounds=2, threads=1, checkpoint=checkpoint)
    flops = {name: graph.flops for name, graph in Bundle.open(bundle).manifest.graphs.items()}
    assert result.chunk_gflop == pytest.approx(chunk_flops(SMALL, flops) / 1e9)
    assert list(result.backends) == [DEFAULT, "torch"]
    for figures in result.backends.values():
        assert figures.rtf == pytest.approx(figures.chunk_ms / 1e3 / SMALL.chunk_seconds)
        assert figures.gflops == pytest.approx(result.chunk_gflop / figures.chunk_ms * 1e3)
        assert 0 < figures.share_of_gemm < 1
    assert result.backends[DEFAULT].ratio == 1.0
    assert result.backends["torch"].engine.startswith("torch ")
    assert "time against the first" in table(result)


def test_a_checkpoint_that_a_bundle_names_is_not_opened_by_itself(bundle, tmp_path, capsys) -> None:
    assert main(["--bundle", bundle, "--against", "torch"]) == 2
    assert "came from the checkpoint" in capsys.readouterr().err
    empty = ["--checkpoint", str(tmp_path)]
    assert main(["--bundle", bundle, "--against", "torch", *empty]) == 2
    assert f"{tmp_path} is no known checkpoint" in capsys.readouterr().err


def test_the_command_prints_json(bundle, capsys) -> None:
    assert main(["--bundle", bundle, "--chunks", "1", "--rounds", "1", "--threads", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backends"][DEFAULT]["chunk_ms"] > 0


def test_two_bundles_of_one_model_run_side_by_side_and_of_two_models_do_not(bundle, tmp_path, capsys) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(bundle, twin)
    result = bench(bundle, (str(twin),), chunks=1, rounds=1, threads=1)
    assert list(result.backends) == [DEFAULT, str(twin)]
    assert [figures.precision for figures in result.backends.values()] == ["fp32", "fp32"]
    manifest = Bundle.open(twin).manifest
    other = dataclasses.replace(manifest, spec=manifest.spec.with_steps(1))
    (twin / "manifest.json").write_text(other.to_json())
    assert main(["--bundle", bundle, "--against", str(twin)]) == 2
    assert "another model" in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_one_sentence_and_status_2(tmp_path, capsys) -> None:
    assert main(["--bundle", str(tmp_path)]) == 2
    assert "manifest" in capsys.readouterr().err


def test_an_unknown_backend_is_refused(bundle, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--bundle", bundle, "--against", "tensorflow"])
    assert stopped.value.code == 2
    assert "tensorflow" in capsys.readouterr().err


def test_missing_openvino_is_said_with_its_cure(bundle, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["--bundle", bundle, "--against", "openvino"]) == 2
    assert "rap-edge[bench]" in capsys.readouterr().err


def least_psnr_of_openvino(bundle: str) -> float:
    from rap_edge.export.parity.compare import compare, roll_out
    from rap_edge.runtime.loading import load_engines

    opened = Bundle.open(bundle)
    frames = [
        roll_out(SMALL, load_engines(opened, backend, threads=1).engines, drawn(SMALL), 2)
        for backend in ("onnxruntime", "openvino")
    ]
    return min(compare(*pair).psnr for pair in zip(*frames, strict=True))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_computes_the_same_frames(bundle) -> None:
    """In a process of its own: with OpenVINO loaded, a Ctrl-C in a later test has crashed the interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(least_psnr_of_openvino, bundle).result() > 50
