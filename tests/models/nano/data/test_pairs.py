"""The pictures that the decoder learns from: how heads move in them, and what is on disk."""

from pathlib import Path

import numpy as np
import pytest

from rap_edge.models.nano.data import pairs, sentences


def test_blinks_take_about_six_frames() -> None:
    rng = np.random.default_rng(0)
    blinks = np.concatenate([np.pad(pairs.head_motion(rng, 100)[:, 5] > 0, 1) for _ in range(20)])
    edges = np.flatnonzero(np.diff(blinks.astype(int)))
    lengths = edges[1::2] - edges[::2]
    assert np.median(lengths) == 6


def test_head_moves_smoothly() -> None:
    motion = pairs.head_motion(np.random.default_rng(1), 250)[:, :5]
    assert np.abs(np.diff(motion, axis=0)).max() < 0.15
    assert np.ptp(motion, axis=0).max() > 0.05


def test_splits_and_clips_have_their_own_identities() -> None:
    identities = {pairs.make_clip(0, split, index).identity for split in sentences.SPLITS for index in range(4)}
    assert len(identities) == 8


def test_existing_folder_is_not_touched(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert pairs.main(["--out", str(tmp_path), "--clips", "1"]) == 2
    assert "exists already" in capfd.readouterr().err


def test_in_a_still_clip_eyes_and_mouth_move_and_the_head_keeps_its_pose() -> None:
    clips = [pairs.make_still_clip(1, "train", index) for index in range(8)]
    for clip in clips:
        assert np.array_equal(clip.motion[:, 5:10], np.tile(clip.portrait[5:10], (pairs.FRAMES, 1)))
        assert clip.motion[:, 11:].std(0).min() > 0.1
    assert sum(clip.motion[:, 0].any() for clip in clips) in range(1, 8)
    assert sum(clip.motion[:, 10].any() for clip in clips) in range(1, 8)
