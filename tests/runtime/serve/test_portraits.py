"""Which portraits a kiosk offers, and when they are opened."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_png, write_tiny_bundle

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, PortraitFigures
from rap_edge.runtime.errors import BundleError, PortraitError
from rap_edge.runtime.outputs.png import encode_png
from rap_edge.runtime.serve.portraits import Portraits, sources_of


@pytest.fixture
def offering(tmp_path: Path) -> Bundle:
    """A bundle that offers a dark and a light portrait."""
    root = write_tiny_bundle(tmp_path / "bundle")
    manifest, files = Bundle.open(root).manifest, {}
    for name, grey in (("dark", 20), ("light", 230)):
        write_png(root / f"{name}.png", np.full((64, 64, 3), grey, np.uint8))
        files[f"{name}.png"] = hash_file(root / f"{name}.png")
    offered = {"Dora": "dark.png", "Lea": "light.png"}
    manifest = replace(manifest, files={**manifest.files, **files}, portraits=offered)
    (root / MANIFEST_NAME).write_text(manifest.to_json())
    return Bundle.open(root)


def test_what_the_bundle_offers_is_offered_where_the_operator_brings_nothing(offering: Bundle, tmp_path: Path) -> None:
    assert [name for _, name in sources_of(offering, ())] == ["Dora", "Lea"]
    mine = write_png(tmp_path / "our_guide.png", np.zeros((64, 64, 3), np.uint8))
    assert [name for _, name in sources_of(offering, (mine,))] == ["our guide", "Built in"]


def test_a_strict_kiosk_refuses_a_visitors_picture_that_the_model_cannot_draw(offering: Bundle) -> None:
    gates = PortraitFigures(psnr=25.0, ssim=0.7, colour=4.0)
    (offering.root / MANIFEST_NAME).write_text(replace(offering.manifest, portrait_gates=gates).to_json())
    bundle = Bundle.open(offering.root)
    sources = sources_of(bundle, ())
    board = encode_png((np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)).astype(np.uint8))
    with Avatar.open(bundle, sources[0][0], threads=1) as avatar:
        told = Portraits(avatar, sources).upload(board)
        assert "cannot draw this portrait well" in told.avatar.portrait_fault
        with pytest.raises(PortraitError, match="cannot draw this portrait well"):
            Portraits(avatar, sources, strict=True).upload(board)


def test_a_bundle_that_offers_nothing_has_its_golden_portrait(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle"))
    assert [name for _, name in sources_of(bundle, ())] == ["Built in"]


def test_a_portrait_is_opened_once_and_not_before_somebody_chooses_it(
    offering: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    with_portrait = Avatar.with_portrait
    monkeypatch.setattr(
        Avatar, "with_portrait", lambda avatar, picture: opened.append(picture) or with_portrait(avatar, picture)
    )
    sources = sources_of(offering, ())
    with Avatar.open(offering, sources[0][0], threads=1) as avatar:
        portraits = Portraits(avatar, sources)
        dora, lea = portraits.listed()
        assert (dora.picture.mean(), lea.picture.mean()) == (20, 230)
        assert dora.avatar is avatar
        assert not opened
        assert lea.avatar is lea.avatar
        assert len(opened) == 1
        assert lea.avatar.portrait.mean() == 230


def test_a_portrait_without_a_hash_is_refused(offering: Bundle) -> None:
    data = json.loads((offering.root / MANIFEST_NAME).read_text())
    data["portraits"]["Eve"] = "eve.png"
    (offering.root / MANIFEST_NAME).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"eve\.png"):
        Bundle.open(offering.root)
