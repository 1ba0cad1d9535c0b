"""The backends: what each file has to hold, and that one line makes a fourth one known to every program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.bundles import numpy_backend
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.waves import speech, write_wav

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.cli import run as cli
from rap_edge.runtime.engines import registry
from rap_edge.runtime.engines.engine_set import EngineSet, find_set
from rap_edge.runtime.errors import BundleError, PreflightError


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> str:
    """A backend that nobody has heard of, registered."""
    monkeypatch.setattr(registry, "BACKENDS", {**registry.BACKENDS, "numpy": numpy_backend})
    return "numpy"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("registry") / "tiny")


def test_every_backend_has_the_same_names_inside() -> None:
    for backend in registry.BACKENDS.values():
        assert isinstance(backend.RUNS_GRAPHS, bool)
        assert all(callable(getattr(backend, name)) for name in ("check", "needs", "load"))


def test_a_fourth_backend_renders_after_one_registration(bundle: Path, fourth: str) -> None:
    with Avatar.open(bundle, engine=fourth) as avatar, avatar.session() as session:
        assert (avatar.engine, avatar.notes) == ("numpy", ("It is slow.",))
        session.push(speech(TINY.chunk_seconds, TINY.sample_rate))
        assert len(next(session.chunks()).frames) == TINY.new_frames


def test_the_command_line_knows_it_too(bundle: Path, fourth: str, tmp_path: Path) -> None:
    audio = write_wav(str(tmp_path / "talk.wav"), speech(1.0, TINY.sample_rate), TINY.sample_rate)
    report = tmp_path / "report.json"
    words = ["--bundle", str(bundle), "--engine", fourth, "--audio", audio, "-o", str(tmp_path / "out.mp4")]
    assert cli.main([*words, "--report", str(report)]) == 0
    assert json.loads(report.read_text())["engine"] == "numpy"


def test_one_that_is_not_registered_is_not_known(bundle: Path) -> None:
    with pytest.raises(BundleError, match="'numpy' is no graph or plan"):
        Avatar.open(bundle, engine="numpy")


def test_a_set_is_found_by_its_name_and_by_a_file_on_disk_or_inside_the_bundle(bundle: Path, monkeypatch) -> None:
    opened, graphs = Bundle.open(bundle), EngineSet("onnxruntime")
    assert find_set(opened, None) == find_set(opened, "onnxruntime") == graphs
    assert find_set(opened, "dit.onnx") == find_set(opened, str(bundle / "dit.onnx")) == graphs
    monkeypatch.chdir(bundle.parent)
    assert find_set(Bundle.open("tiny"), "tiny/dit.onnx") == graphs
    with pytest.raises(PreflightError, match="has no plans of 'tensorrt-rtx'"):
        find_set(opened, "tensorrt-rtx")
    with pytest.raises(PreflightError, match=r"'dit.plan' has not been built"):
        find_set(opened, "tiny/dit.plan")
    with pytest.raises(BundleError, match="is no graph or plan"):
        find_set(opened, "elsewhere/dit.onnx")
