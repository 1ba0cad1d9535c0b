"""The data set: what is on disk, that it fits together, and that it does not depend on how it was built."""

import wave
from pathlib import Path

import numpy as np
import pytest

from rap_edge.models.nano import assets
from rap_edge.models.nano.data import dataset, sentences
from rap_edge.models.nano.data.renderer import mouth_box, neutral_motion, render


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nano") / "set"
    arguments = ["--out", str(out), "--clips", "3", "--seed", "4", "--split", "held-out", "--processes", "2"]
    assert dataset.main(arguments) == 0
    return out


def test_arrays_have_the_documented_shapes(folder: Path) -> None:
    shapes = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    assert {name: (array.dtype.name, array.shape) for name, array in shapes.items()} == {
        "video": ("uint8", (3, 41, 256, 256, 3)),
        "motion": ("float32", (3, 41, 13)),
        "mouth_box": ("int16", (3, 41, 4)),
        "waveform": ("float16", (3, 640 * 91)),
    }


def test_clip_on_disk_is_a_function_of_seed_split_and_index(folder: Path) -> None:
    clip = dataset.make_clip(4, "held-out", 2)
    motion = np.load(folder / "motion.npy")[2]
    assert np.array_equal(motion[:, 5:], clip.motion[:, 5:])
    # The length of every sound depends by up to 10 ms on what espeak-ng said before.
    shifted = [np.corrcoef(motion[1 + lag : 40 + lag, 0], clip.motion[1:40, 0])[0, 1] for lag in (-1, 0, 1)]
    assert max(shifted) > 0.9
    assert np.array_equal(np.load(folder / "video.npy")[2, 7], render(clip.identity, motion[7]))
    assert tuple(np.load(folder / "mouth_box.npy")[2, 7]) == mouth_box(clip.identity, motion[7])


def test_waveform_ends_with_the_clips_own_sound(folder: Path) -> None:
    for motion, waveform in zip(np.load(folder / "motion.npy"), np.load(folder / "waveform.npy"), strict=True):
        loudness = np.sqrt((waveform[640 * 50 :].astype(np.float32).reshape(41, 640) ** 2).mean(1))
        if motion[:, 0].max() > 0:
            assert np.corrcoef(loudness, motion[:, 0])[0, 1] > 0.15


def test_existing_folder_is_not_touched(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert dataset.main(["--out", str(folder), "--clips", "1"]) == 2
    assert "exists already" in capfd.readouterr().err


def test_splits_and_clips_have_their_own_identities() -> None:
    identities = {dataset.make_clip(0, split, index).identity for split in sentences.SPLITS for index in range(4)}
    assert len(identities) == 8


def test_some_clips_are_silent_with_a_closed_mouth_and_some_of_them_are_noisy() -> None:
    clips = [dataset.make_clip(1, "train", index) for index in range(60)]
    silent = [clip for clip in clips if clip.motion[:, 0].max() == 0]
    assert 2 <= len(silent) <= 16
    loudness = [float(np.abs(clip.waveform).max()) for clip in silent]
    assert min(loudness) == 0
    assert max(loudness) > 0.005


def test_blinks_take_about_six_frames() -> None:
    rng = np.random.default_rng(0)
    blinks = np.concatenate([np.pad(dataset.head_motion(rng, 100)[:, 5] > 0, 1) for _ in range(20)])
    edges = np.flatnonzero(np.diff(blinks.astype(int)))
    lengths = edges[1::2] - edges[::2]
    assert np.median(lengths) == 6


def test_head_moves_smoothly() -> None:
    motion = dataset.head_motion(np.random.default_rng(1), 250)[:, :5]
    assert np.abs(np.diff(motion, axis=0)).max() < 0.15
    assert np.ptp(motion, axis=0).max() > 0.05


def test_noise_has_unit_power() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        assert np.sqrt(np.mean(dataset.noise(rng, 16000) ** 2)) == pytest.approx(1, abs=1e-3)


def test_demo_assets_are_written_and_held_out(tmp_path: Path) -> None:
    assert assets.main(["--out", str(tmp_path), "--size", "256"]) == 0
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert 7 < file.getnframes() / 16000 < 10
    assert (tmp_path / "portrait.png").stat().st_size > 10_000
    assert set(assets.SENTENCES) <= set(sentences.HELD_OUT_SENTENCES)
    assert assets.VOICE.name in sentences.HELD_OUT_VOICES
    identity = dataset.make_clip(assets.PORTRAIT_SEED, "held-out", assets.PORTRAIT_INDEX).identity
    assert np.array_equal(assets.held_out_portrait(assets.PORTRAIT_INDEX, 256), render(identity, neutral_motion()))
