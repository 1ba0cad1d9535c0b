"""`rap-export compare`, and Polygraphy's own programs on a bundle's graphs as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundles.planned import write_planned_bundle
from helpers.bundles.tiny_bundle import write_tiny_bundle
from onnx import numpy_helper

from rap_edge.export.cli import main
from rap_edge.export.commands import compare

pytest.importorskip("polygraphy", reason="Polygraphy comes with the extra debug")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def with_other_side(monkeypatch, change) -> None:
    """Let the other side run the graph after `change`, as an engine that computes something else would."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    def changed(bundle, plan, file, *, layers):
        model = onnx.load(file)
        change(model.graph)
        return OnnxrtRunner(SessionFromOnnx(model.SerializeToString()), name="a plan")

    monkeypatch.setattr(compare, "other_side", changed)


def brighter(graph: onnx.GraphProto) -> None:
    """Divide pixels by another number than 127.5, in the encoder."""
    for item in graph.initializer:
        if graph.name == "vae_encoder" and np.array_equal(numpy_helper.to_array(item), np.float32(127.5)):
            item.CopyFrom(numpy_helper.from_array(np.array(120.0, np.float32), item.name))


def test_every_graph_is_compared_on_what_the_chunk_loop_gives_it(bundle, capsys) -> None:
    assert main(["compare", str(bundle)]) == 0
    out = capsys.readouterr().out
    for graph in ("audio_encoder", "conditioner", "dit", "vae_encoder", "vae_decoder"):
        assert f"{graph}: ONNX Runtime and the graph as written agree in every tensor within 80 dB" in out


def test_the_first_layer_that_differs_is_named(bundle, monkeypatch, capsys) -> None:
    with_other_side(monkeypatch, brighter)
    assert main(["compare", str(bundle), "--layers", "--json"]) == 1
    found = {item["graph"]: item for item in json.loads(capsys.readouterr().out)}
    # Casts, transpositions and means come first and are the same.
    assert found["vae_encoder"]["first"]["layer"] == "Div"
    assert found["vae_encoder"]["tensors"] > 5
    assert found["vae_encoder"]["first"]["psnr"] < 80 < found["dit"]["worst"]["psnr"]
    assert main(["compare", str(bundle), "--layers", "--graph", "vae_encoder"]) == 1
    assert "vae_encoder: the first layer that differs is Div, in 't5': " in capsys.readouterr().out


def test_without_layers_the_output_that_differs_is_named(bundle, monkeypatch, capsys) -> None:
    with_other_side(monkeypatch, brighter)
    assert main(["compare", str(bundle), "--graph", "vae_encoder"]) == 1
    assert "the first layer that differs is Expand, in 'latents': " in capsys.readouterr().out


def test_tensors_that_the_other_side_lacks_are_a_sentence(bundle, monkeypatch, capsys) -> None:
    def fewer(graph: onnx.GraphProto) -> None:
        del graph.output[-1]

    with_other_side(monkeypatch, fewer)
    assert main(["compare", str(bundle), "--graph", "vae_decoder", "--layers"]) == 2
    assert "in a plan; leave --layers out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--graph", "unet"], "There is no graph 'unet'; choose among audio_encoder, "),
        (["--engine", "tensorrt"], "The bundle has no tensorrt plan of 'audio_encoder'; build one with rap-export "),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(bundle, words, sentence, capsys) -> None:
    assert main(["compare", str(bundle), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_plan_that_cannot_run_here_is_refused_with_the_fact(tmp_path, capsys) -> None:
    planned = write_planned_bundle(tmp_path / "planned")
    assert main(["compare", str(planned), "--engine", "tensorrt-rtx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error


def polygraphy(*words: object) -> str:
    start = "import sys; from polygraphy.tools import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", start, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_polygraphys_programs_take_a_bundles_graphs_as_they_are(small_bundle, tmp_path) -> None:
    dit = Path(small_bundle) / "dit.onnx"
    assert "HybridAttention" in polygraphy("inspect", "model", dit, "--show", "layers")
    assert "PASSED" in polygraphy("run", dit, "--onnxrt")
    polygraphy("surgeon", "sanitize", dit, "-o", tmp_path / "sanitized.onnx")
    assert "PASSED" in polygraphy("run", tmp_path / "sanitized.onnx", "--onnxrt")
