"""An avatar's portraits: another one over the same engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, drain, frames_of, noisy_field, portrait, speech
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, PortraitFigures
from rap_edge.runtime.errors import PortraitError, SessionError

BRIGHT = np.full((*TINY.image_size, 3), 200, np.uint8)


def frames(face: Avatar) -> np.ndarray:
    with face.session(seed=2) as session:
        session.push(speech(2 * TINY.chunk_seconds))
        return frames_of(drain(session))


def test_another_portrait_gives_the_frames_of_an_avatar_that_was_opened_with_it() -> None:
    face = avatar(dit=noisy_field)
    before = frames(face)
    other = face.with_portrait(BRIGHT)
    alone = Avatar(TINY, tiny_engines(TINY, dit=noisy_field), BRIGHT, "fp32")
    assert np.array_equal(frames(other), frames(alone))
    assert np.array_equal(frames(face), before)
    assert np.array_equal(other.portrait, BRIGHT)
    assert np.array_equal(face.portrait, portrait())


def test_each_is_closed_for_itself() -> None:
    face = avatar()
    other = face.with_portrait(BRIGHT)
    face.close()
    assert len(frames(other))
    with pytest.raises(SessionError, match="closed"):
        face.with_portrait(BRIGHT)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(PortraitError):
        avatar().with_portrait(b"no picture")


def test_idle_motion_is_that_of_the_own_portrait() -> None:
    face = avatar()
    other = face.with_portrait(BRIGHT)
    assert other._reels is not face._reels


def test_a_portrait_that_the_model_cannot_draw_has_a_fault_and_figures(tmp_path: Path) -> None:
    # The tiny model draws the mean of cells, so it is at home with plain pictures and lost with a chessboard.
    board = np.indices(TINY.image_size).sum(0)[..., None] % 2 * np.full(3, 255)
    root = write_tiny_bundle(tmp_path / "bundle")
    manifest = Bundle.open(root).manifest
    plain = np.full((*TINY.image_size, 3), 90, np.uint8)
    with Avatar.open(root, plain, threads=1) as face:
        assert (face.portrait_figures, face.portrait_fault) == (None, "")
    gates = PortraitFigures(psnr=25.0, ssim=0.7, colour=4.0)
    (root / MANIFEST_NAME).write_text(replace(manifest, portrait_gates=gates).to_json())
    with Avatar.open(root, plain, threads=1, strict_portrait=True) as face:
        assert face.portrait_fault == ""
        assert face.portrait_figures is not None
        assert face.portrait_figures.psnr > 40
        other = face.with_portrait(board.astype(np.uint8))
        assert "cannot draw this portrait well" in other.portrait_fault
        assert face.portrait_fault == ""
    with pytest.raises(PortraitError, match="cannot draw this portrait well"):
        Avatar.open(root, board.astype(np.uint8), threads=1, strict_portrait=True)
