"""The twelve portraits that ship."""

from pathlib import Path

import numpy as np
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.models.nano.assets import held_out_portrait
from rap_edge.models.nano.portraits import pictures
from rap_edge.models.nano.portraits.draw import PEOPLE, main
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.inputs.picture.portrait import load_portrait


def test_the_pictures_that_ship_are_drawn_by_the_renderer() -> None:
    shipped = pictures()
    assert list(shipped) == sorted(PEOPLE)
    assert len(shipped) == 12
    assert sum(map(len, shipped.values())) < 160_000
    for name in ("Alma", "Felix", "Luca"):
        drawn = held_out_portrait(PEOPLE[name], 512)
        assert np.abs(load_portrait(shipped[name], 512) - drawn.astype(float)).mean() < 1.0


def test_the_program_draws_everybody(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--size", "64"]) == 0
    assert sorted(path.stem for path in tmp_path.iterdir()) == list(pictures())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    assert main(["--out", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_an_exported_nano_offers_them(nano_bundle: Path) -> None:
    bundle = Bundle.open(nano_bundle)
    offered = {name: bundle.read(path) for name, path in bundle.manifest.portraits.items()}
    assert offered == pictures()


def test_another_model_offers_none(tmp_path: Path) -> None:
    assert Bundle.open(write_tiny_bundle(tmp_path / "bundle")).manifest.portraits == {}
