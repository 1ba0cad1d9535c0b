"""rap-calibrate from a bundle to a bundle, at test size, and what it says when it cannot."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundles.exports import export
from helpers.bundles.fixed_times import fix_times
from helpers.bundles.small import NANO, SMALL, small_networks
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.calibration import calibrator
from rap_edge.calibration.calibrator import Request, calibrate
from rap_edge.calibration.choose.timing import Gain
from rap_edge.calibration.cli import main, table
from rap_edge.calibration.judge.gates import Gates
from rap_edge.calibration.record.clips import Amounts
from rap_edge.calibration.steps import choosing as choosing
from rap_edge.calibration.steps.context import Settings
from rap_edge.export.cli import main as export_main
from rap_edge.export.parity.check_inputs import drawn_speech, to_int16
from rap_edge.export.stages import Stages
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.cli.run import main as run_main
from rap_edge.runtime.errors import CalibrationError
from rap_edge.runtime.outputs.wave_file import write_wave

AMOUNTS = Amounts(portraits=1, voices=1, record_seconds=1.92, short_seconds=1.92, long_seconds=2.88)
# Random weights make noise of any small change: the gates are those of a model that talks, and not of interest here.
SETTINGS = Settings(
    amounts=AMOUNTS,
    gates=Gates(psnr=5.0, ssim=-1.0, mouth_loss=2.0, drift=60.0, speedup=0.0),
    sensitivity_chunks=2,
    timing_seconds=0.0,
    race_chunks=1,
    threads=1,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "small-fp32"
    export(small_networks(SMALL, NANO), folder, chunks=2)
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    write_wave(path, to_int16(drawn_speech(SMALL.sample_rate, 4.0)), SMALL.sample_rate)
    return path


def run(bundle: Path, speech: Path, output: Path, settings: Settings = SETTINGS, **request):
    return calibrate(Request(bundle, output=output, audio=speech, **request), settings, Stages(io.StringIO()))


@pytest.fixture(scope="module")
def calibrated(bundle, speech, tmp_path_factory):
    output = tmp_path_factory.mktemp("calibrated") / "small-int8"
    with pytest.MonkeyPatch.context() as patch:
        fix_times(patch, slower=("audio_encoder",))
        return run(bundle, speech, output)


def test_the_result_is_a_bundle_that_runs(calibrated, speech, tmp_path) -> None:
    bundle = Bundle.open(calibrated.output)
    bundle.verify()
    assert bundle.manifest.precision == "int8"
    out = tmp_path / "out.mp4"
    assert run_main(["--bundle", calibrated.output, "--audio", str(speech), "-o", str(out)]) == 0
    assert out.stat().st_size > 1000
    assert bundle.manifest.golden.psnr
    assert bundle.manifest.golden.portrait
    assert set(bundle.manifest.parity["graphs"]) >= {"dit", "vae_decoder"}


def test_layers_that_pay_are_in_int8_and_the_others_are_not(calibrated) -> None:
    bundle = Bundle.open(calibrated.output)
    kinds = {}
    for name, info in bundle.manifest.graphs.items():
        nodes = onnx.load(bundle.path(info.file)).graph.node
        kinds[name] = sum(node.op_type == "QuantizeLinear" for node in nodes)
    assert kinds["dit"] > 0
    assert kinds["vae_decoder"] > 0
    assert kinds["audio_encoder"] == kinds["vae_encoder"] == 0


def test_the_manifest_says_what_was_done(calibrated) -> None:
    record = Bundle.open(calibrated.output).manifest.calibration
    assert len(record["set"]["sha256"]) == 64
    assert any("later chunk, silence, level" in stratum for stratum in record["set"]["strata"])
    assert {entry["decision"] for entry in record["ledger"]} == {"int8", "fp32"}
    assert all(entry["reason"].endswith(".") for entry in record["ledger"])
    assert set(record["gates"]) == {"psnr", "ssim", "mouth_loss", "drift", "speedup"}
    assert record["hardware"]["cpu"]
    assert record["pareto"][-1]["layers"] == sum(entry["decision"] == "int8" for entry in record["ledger"])
    assert set(record["observers"]["dit"]["psnr"]) == {"min-max", "percentile", "entropy", "mse"}
    assert record["report"] in Bundle.open(calibrated.output).manifest.files


def test_the_report_is_one_page_with_its_pictures(calibrated) -> None:
    page = (Path(calibrated.output) / "calibration" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 12  # three precisions and a difference, several moments
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "src='http" not in page
    for entry in calibrated.ledger:
        assert entry.node in page
    assert "int8" in table(calibrated)


def test_a_second_run_goes_on_from_the_first(bundle, speech, calibrated, monkeypatch) -> None:
    def done(*arguments):
        raise AssertionError("was done before")

    monkeypatch.setattr(choosing, "measure_kind", done)
    monkeypatch.setattr(calibrator, "race", done)
    monkeypatch.setattr("rap_edge.calibration.steps.observing.observe", done)
    monkeypatch.setattr("rap_edge.calibration.steps.observing.record", done)
    monkeypatch.setattr("rap_edge.calibration.choose.sensitivity.Sensitivity.of", done)
    again = run(bundle, speech, Path(calibrated.output))
    assert again.recorded.sha256 == calibrated.recorded.sha256
    assert again.found == calibrated.found


def test_a_recorded_set_serves_another_run_and_no_other_model(bundle, speech, calibrated, tmp_path, capsys) -> None:
    recorded = calibrated.recorded.folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "measure_kind", lambda *arguments: Gain(-1e-3, 0.0, 1))
        patch.setattr(
            "rap_edge.calibration.steps.observing.record", lambda *arguments: pytest.fail("was recorded before")
        )
        with pytest.raises(CalibrationError, match="No layer is faster"):
            run(bundle, speech, tmp_path / "no", recorded=recorded)
    copy = tmp_path / "copy"
    shutil.copytree(recorded, copy)
    index = json.loads((copy / "set.json").read_text())
    index["spec"]["name"] = "stranger"
    (copy / "set.json").write_text(json.dumps(index))
    line = refused(
        capsys, "--bundle", str(bundle), "--audio", str(speech), "--set", str(copy), "-o", str(tmp_path / "no")
    )
    assert "another spec ('stranger')" in line
    assert not (tmp_path / "no").exists()


def test_a_gate_that_fails_leaves_an_older_bundle_as_it_was(bundle, speech, calibrated, tmp_path) -> None:
    output = write_tiny_bundle(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    done = Path(calibrated.output).with_name(".small-int8.calibration")
    shutil.copytree(done, tmp_path / ".out.calibration")
    strict = dataclasses.replace(SETTINGS, gates=dataclasses.replace(SETTINGS.gates, speedup=1e6))
    with pytest.MonkeyPatch.context() as patch:
        fix_times(patch, slower=("audio_encoder",))
        with pytest.raises(CalibrationError, match="fails the gate 'time of the base"):
            run(bundle, speech, output, strict)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("rap-calibrate: ")
    return last


def test_bad_input_is_one_sentence_and_status_2(bundle, speech, tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    good = ["--bundle", str(bundle), "-o", out]
    assert "manifest.json" in refused(capsys, "--bundle", str(tmp_path / "nowhere"))
    assert "does not exist" in refused(capsys, *good, "--audio", str(tmp_path / "nowhere"))
    assert "no audio file" in refused(capsys, *good, "--audio", str(bundle))
    assert "fp8 runs on GPUs" in refused(capsys, *good, "--precision", "fp8")
    assert "is the bundle itself" in refused(capsys, "--bundle", str(bundle), "-o", str(bundle))
    assert "no readable calibration set" in refused(capsys, *good, "--audio", str(speech), "--set", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "other files" in refused(capsys, "--bundle", str(bundle), "-o", str(tmp_path / "mine"))
    assert not Path(out).exists()


def test_a_graph_whose_hash_does_not_match_is_refused(bundle, speech, tmp_path, capsys) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    with (changed / "dit.onnx").open("r+b") as stream:
        stream.seek(-1, 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([byte ^ 1]))
    line = refused(capsys, "--bundle", str(changed), "--audio", str(speech), "-o", str(tmp_path / "out"))
    assert "'dit.onnx' has been changed" in line


def test_what_is_read_does_not_lie_in_the_bundle_that_is_replaced(bundle, tmp_path, capsys) -> None:
    older = shutil.copytree(bundle, tmp_path / "older")
    for option in ("--audio", "--set"):
        line = refused(capsys, "--bundle", str(bundle), option, str(older / "golden"), "-o", str(older))
        assert "which is replaced" in line
    Bundle.open(older).verify()


def test_explain_prints_the_ledgers_entry(calibrated, capsys) -> None:
    assert export_main(["explain", calibrated.output, "dit.blocks.0.ffn.0"]) == 0
    text = capsys.readouterr().out
    assert "precision    int8" in text
    assert "Saves 1.000 ms per chunk" in text
    assert export_main(["explain", calibrated.output, "audio_encoder:encoder.layers.0.attention.q_proj"]) == 0
    assert "Does not pay" in capsys.readouterr().out


def test_explaining_a_layer_that_is_not_there_names_near_ones(calibrated, bundle, capsys) -> None:
    assert export_main(["explain", calibrated.output, "dit.blocks.0.fnn.0"]) == 2
    assert "near are 'dit.blocks.0.ffn.0'" in capsys.readouterr().err
    assert export_main(["explain", calibrated.output, "zzz"]) == 2
    assert "the report of the bundle lists all" in capsys.readouterr().err
    assert export_main(["explain", str(bundle), "dit.blocks.0.ffn.0"]) == 2
    assert "has no ledger" in capsys.readouterr().err


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "for name in ['torch', 'onnx', 'onnx_ir', 'onnxruntime', 'av', 'matplotlib', 'cv2']: sys.modules[name] = None\n"
        "from rap_edge.calibration.cli import main\n"
        "sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--audio" in done.stdout


def test_a_missing_package_is_a_sentence(bundle, monkeypatch, capsys) -> None:
    for module in [name for name in sys.modules if name.startswith(("rap_edge.calibration.", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    assert main(["--bundle", str(bundle)]) == 2
    assert capsys.readouterr().err == (
        "rap-calibrate: The package 'matplotlib' is not installed; run pip install 'rap-edge[calibrate]'.\n"
    )


def test_the_json_is_the_manifests_record(calibrated) -> None:
    from rap_edge.calibration.cli import as_json

    record = json.loads(json.dumps(as_json(calibrated)))
    assert record["ledger"] == Bundle.open(calibrated.output).manifest.calibration["ledger"]
    assert np.isfinite(record["gates"]["psnr"]["value"])
