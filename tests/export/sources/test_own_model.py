"""A model of somebody's own: the example from its code to frames, and what is said where a module does not fit."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import onnx
import own_model
import pytest
import torch
from helpers.bundles.fixed_times import fix_times
from helpers.bundles.small import drawn
from torch import nn

from rap_edge.calibration.calibrator import Request, calibrate
from rap_edge.calibration.judge.gates import Gates
from rap_edge.calibration.record.clips import Amounts
from rap_edge.calibration.steps.context import Settings
from rap_edge.export import OwnModel
from rap_edge.export.cli import main
from rap_edge.export.exporter import ExportSettings, export_bundle
from rap_edge.export.sources.own_model import OwnSource, own_source
from rap_edge.export.stages import Stages
from rap_edge.runtime import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import CheckpointError, ExportError, RapEdgeError
from rap_edge.runtime.outputs.wave_file import write_wave


def export(model: OwnModel, folder: Path, **settings):
    source = OwnSource(lambda: model, "test:load")
    return export_bundle(source, folder, ExportSettings(threads=1, **settings), drawn, Stages(io.StringIO()))


@pytest.mark.slow
def test_the_example_is_exported_calibrated_and_run(tmp_path, capsys, monkeypatch) -> None:
    folder = tmp_path / "mine"
    assert main(["--model", "own_model:load", "-o", str(folder)]) == 0
    captured = capsys.readouterr()
    assert "running the code of own_model:load" in captured.err
    assert "written out" not in captured.out
    bundle = Bundle.open(folder)
    assert bundle.manifest.provenance["model"] == "own_model:load"
    assert bundle.manifest.parity["rollout"]["psnr"] > 60
    # The example's handwriting is gone: hybrid attention, and 3-D convolutions as 2-D ones.
    kinds = [node.op_type for node in onnx.load(bundle.path("dit.onnx")).graph.node]
    assert (kinds.count("HybridAttention"), kinds.count("Attention"), kinds.count("Einsum")) == (2, 2, 0)
    decoder = onnx.load(bundle.path("vae_decoder.onnx")).graph
    assert {len(weight.dims) for weight in decoder.initializer if weight.name.startswith("conv3d_weight")} == {4}

    speech = tmp_path / "speech.wav"
    write_wave(speech, drawn(own_model.SPEC).speech, own_model.SPEC.sample_rate)
    settings = Settings(
        amounts=Amounts(portraits=1, voices=1, record_seconds=1.28, short_seconds=1.28, long_seconds=1.92),
        gates=Gates(psnr=5.0, ssim=-1.0, mouth_loss=2.0, drift=60.0, speedup=0.0),
        sensitivity_chunks=2,
        timing_seconds=0.0,
        race_chunks=1,
        threads=1,
    )
    fix_times(monkeypatch, slower=())
    calibrate(Request(folder, output=tmp_path / "int8", audio=speech), settings, Stages(io.StringIO()))
    for place in (folder, tmp_path / "int8"):
        with Avatar.open(place, threads=1) as avatar, avatar.session() as session:
            session.push(drawn(own_model.SPEC).waveform(2 * own_model.SPEC.chunk_samples))
            frames = np.concatenate([chunk.frames for chunk in session.chunks()])
        assert frames.shape == (2 * own_model.SPEC.new_frames, 64, 64, 3)
        assert frames.std() > 0


@pytest.mark.slow
def test_half_weights_that_are_tied_or_in_bfloat16_export_as_others_do(tmp_path) -> None:
    model = own_model.load()
    model.dit.layers[1].mlp = model.dit.layers[0].mlp
    model.vae_decoder.mix.bfloat16()
    report = export(model, tmp_path / "bundle", precision=Precision.FP16, chunks=2)
    assert report.rollout["psnr"] > 40
    assert model.dit.layers[1].mlp[0].weight.data_ptr() == model.dit.layers[0].mlp[0].weight.data_ptr()


class Changed(nn.Module):
    """A module whose result is changed."""

    def __init__(self, inner: nn.Module, change) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *inputs):
        return self.change(self.inner(*inputs))


def changed(part: str, change) -> OwnModel:
    model = own_model.load()
    return dataclasses.replace(model, **{part: Changed(getattr(model, part), change)})


def with_spec(**fields) -> OwnModel:
    model = own_model.load()
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, **fields))


def without_condition() -> OwnModel:
    return dataclasses.replace(own_model.load(), dit=nn.Linear(1, 1))


def with_tensor(tensor: torch.Tensor) -> OwnModel:
    model = own_model.load()
    model.audio_encoder.register_buffer("extra", tensor)
    return model


def half_a_model() -> OwnModel:
    with torch.device("meta"):
        dit = own_model.Painter(own_model.SPEC)
    weights = own_model.load().dit.state_dict()
    dit.load_state_dict({k: v for k, v in weights.items() if "layers.1" not in k}, strict=False, assign=True)
    return dataclasses.replace(own_model.load(), dit=dit)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: changed("vae_encoder", lambda x: x[:, :3]),
            r"The vae_encoder gives latents of shape \[1, 3, 4, 2, 2\]",
        ),
        (lambda: changed("audio_encoder", lambda x: (x, x)), r"The audio_encoder gives 2 tensors and the spec needs 1"),
        (lambda: changed("audio_encoder", lambda x: {"x": x}), r"The audio_encoder gives a dict and must give tensors"),
        (
            lambda: changed("vae_decoder", lambda x: x[:, :, -3:]),
            r"The vae_decoder gives frames of shape \[3, 64, 64, 3\]",
        ),
        (
            lambda: with_spec(feature_width=16),
            r"The audio_encoder gives audio_features of shape \[25, 2, 8\] and the spec",
        ),
        (
            lambda: with_spec(hidden_dim=48),
            r"The conditioner gives audio_key_00 of shape \[1, 8, 24\] and the spec needs",
        ),
        (lambda: with_spec(latent_channels=6), r"The vae_encoder gives latents of shape \[1, 4, 4, 2, 2\]"),
        (lambda: with_spec(audio_branches="separate"), r"The conditioner gives 4 tensors and the spec needs 8"),
        (lambda: with_spec(image_size=65), r"image_size \(65, 65\) is not a multiple"),
        (without_condition, r"has no method `condition`"),
        (half_a_model, r"The dit's tensor 'layers\.1\.[\w.]+' holds no values"),
        (lambda: with_tensor(torch.ones(2).to(torch.float8_e4m3fn)), r"'extra' is float8_e4m3fn, of which the scales"),
        (lambda: with_tensor(torch.ones(2, dtype=torch.complex64)), r"'extra' is complex, which no graph can hold"),
        (lambda: dataclasses.replace(own_model.load(), dit="dit.pt"), r"The dit is a str and must be a torch"),
    ],
)
def test_what_does_not_fit_is_a_sentence(make, sentence: str, tmp_path) -> None:
    with pytest.raises(RapEdgeError, match=sentence) as found:
        export(make(), tmp_path / "bundle", chunks=2)
    assert "\n" not in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_a_spec_that_a_module_cannot_follow_names_the_module(tmp_path) -> None:
    with pytest.raises(ExportError, match=r"The conditioner fails on inputs of the spec's shapes \(mat1 and mat2"):
        export(with_spec(feature_window=3), tmp_path / "bundle", chunks=2)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (None, "mine:load failed (No module named 'mine'); correct it."),
        ("def other(): pass", "mine:load failed (module 'mine' has no attribute 'load'); correct it."),
        ("def load(): return 5", "mine:load gives a int and must give a rap_edge.export.OwnModel; return one."),
        ("def load():\n    raise KeyError('x')", "mine:load failed in mine.py, line 2 ('x'); correct it."),
        (
            "from torch import nn\ndef load():\n    nn.Linear(2, 2).load_state_dict({})",
            "mine:load failed in mine.py, line 3 (Error(s) in loading state_dict for Linear: Missing key(s) in "
            'state_dict: "weight", "bias"); correct it.',
        ),
    ],
)
def test_what_is_wrong_with_somebodys_code_is_said_with_its_place(code, sentence, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ExportError) as found:
        own_source("mine:load").load()
    assert str(found.value) == sentence


@pytest.mark.parametrize(
    "name", ["mine", "mine:", ":load", "a b:load", "mine:load()", "../mine:load", "x" * 300 + ":f"]
)
def test_the_name_of_a_function_must_be_one(name: str) -> None:
    with pytest.raises(ExportError, match=r"--model must be package\.module:function"):
        own_source(name)


def test_a_bundle_of_ones_own_modules_is_not_loaded_again_behind_ones_back(tmp_path) -> None:
    from helpers.bundles.tiny_bundle import write_tiny_bundle

    from rap_edge.export.sources.network_source import networks_of

    manifest = Bundle.open(write_tiny_bundle(tmp_path / "tiny")).manifest
    own = dataclasses.replace(manifest, provenance={"weights": "own model", "model": "os:abort"})
    with pytest.raises(CheckpointError, match=r"somebody's own \('os:abort'\), which are not run for this"):
        networks_of(own)
