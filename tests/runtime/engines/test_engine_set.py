"""`--engine` means one thing in every program."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bundles.planned import FITTING, folder

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.cli import doctor
from rap_edge.runtime.cli import run as rap_run
from rap_edge.runtime.engines.engine_set import find_set, open_model, set_needs
from rap_edge.runtime.errors import BundleError
from rap_edge.runtime.serve import cli as rap_serve

__all__ = ["folder"]


def test_a_plan_names_its_bundle_and_its_whole_set(folder: Path) -> None:
    bundle, engine = open_model(None, str(folder / "dit.plan"))
    assert bundle.root == folder.absolute()
    assert find_set(bundle, engine) == find_set(Bundle.open(folder), str(folder / "dit.plan"))
    assert find_set(bundle, engine) == find_set(bundle, "tensorrt-rtx")
    assert set(find_set(bundle, engine).plans) == set(bundle.manifest.graphs)
    for need in set_needs(bundle, engine, FITTING):
        need()


@pytest.mark.parametrize("name", ["tensorrt-rtx", "openvino"])
def test_a_sets_name_without_a_bundle_is_a_sentence(name: str) -> None:
    with pytest.raises(BundleError, match=f"'{name}' is the name of a set of engines.*--bundle DIR"):
        open_model(None, name)


@pytest.mark.parametrize(
    "program",
    [
        lambda *model: rap_run.main([*model, "--audio", "talk.wav"]),
        lambda *model: rap_serve.main([*model]),
        lambda *model: doctor.main([*model]),
    ],
    ids=["rap-run", "rap-serve", "rap-doctor"],
)
def test_every_program_says_the_same_of_the_same_engine(program, folder: Path, capsys) -> None:
    for model, said in (
        (("--engine", "tensorrt"), "pass --bundle DIR too"),
        (("--bundle", str(folder), "--engine", "nonsense"), "'nonsense' is no graph or plan of its bundle"),
        (("--bundle", str(folder), "--engine", "tensorrt"), "has no plans of 'tensorrt'"),
        (("--engine", str(folder / "other.plan")), "'other.plan' has not been built"),
    ):
        assert program(*model) in (1, 2)
        told = " ".join("".join(capsys.readouterr()).split())
        assert said in told.replace("│ ", ""), told


def test_the_self_test_takes_the_same(capsys) -> None:
    assert rap_run.main(["--selftest", "--engine", "tensorrt"]) == 2
    assert "pass --bundle DIR too" in capsys.readouterr().err
