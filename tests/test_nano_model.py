"""The model that ships, exported and run by the torch-free runtime on speech, voices and faces it has never seen."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from rap_edge.models.nano import measure
from rap_edge.models.nano.dataset import make_clip
from rap_edge.models.nano.renderer import mouth_box, neutral_motion, render
from rap_edge.runtime import Avatar
from rap_edge.runtime.bundle import Bundle
from rap_edge.runtime.cli import main
from rap_edge.runtime.spec import NANO


def speak(avatar: Avatar, pcm: np.ndarray, seed: int = 0) -> np.ndarray:
    with avatar.session(seed=seed) as session:
        session.push(pcm)
        session.finish()
        return np.concatenate([chunk.frames for chunk in session.chunks()])


def test_the_preset_is_the_shipped_spec(nano_bundle: Path) -> None:
    assert Bundle.open(nano_bundle).manifest.spec == NANO


def test_the_graphs_agree_with_pytorch(nano_bundle: Path) -> None:
    parity = Bundle.open(nano_bundle).manifest.parity
    assert min(figures["psnr"] for figures in parity["graphs"].values()) > 60
    assert parity["rollout"]["chunks"] == 8


def test_the_mouth_follows_held_out_speech_and_not_another_one(nano_bundle: Path) -> None:
    rng = np.random.default_rng(7)
    found, truth = [], []
    for _ in range(3):
        clip = make_clip(rng, "held-out")
        still = neutral_motion()
        portrait = render(clip.identity, still)
        with Avatar.open(nano_bundle, portrait=portrait) as avatar:
            frames = speak(avatar, clip.speech)[: len(clip.motion)]
        gauge = measure.MouthGauge.calibrate(portrait, mouth_box(clip.identity, still))
        found.append(gauge.opening(frames))
        truth.append(clip.motion[: len(frames), 0])
    right = np.corrcoef(np.concatenate(found), np.concatenate(truth))[0, 1]
    length = min(map(len, truth))
    wrong = np.corrcoef(
        np.concatenate([f[:length] for f in found]), np.concatenate([t[:length] for t in np.roll(truth, 1, axis=0)])
    )[0, 1]
    assert right > 0.6
    assert right > wrong + 0.3


def test_the_mouth_is_closed_in_silence(nano_bundle: Path) -> None:
    from rap_edge.models.nano.identity import Identity

    identity = Identity.sample(np.random.default_rng(3))
    still = neutral_motion()
    portrait = render(identity, still)
    with Avatar.open(nano_bundle, portrait=portrait) as avatar:
        frames = speak(avatar, np.zeros(3 * NANO.sample_rate, np.float32))
    gauge = measure.MouthGauge.calibrate(portrait, mouth_box(identity, still))
    assert np.median(gauge.opening(frames)) < 0.15


@pytest.mark.parametrize("rate", [8000, 48000])
def test_rap_run_on_other_rates(nano_bundle: Path, tmp_path: Path, rate: int) -> None:
    import wave

    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        noise = np.random.default_rng(0).normal(0, 3000, (rate, 2))
        file.writeframes(noise.astype("<i2").tobytes())
    out = tmp_path / "out.mp4"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["--bundle", str(nano_bundle), "--audio", str(tmp_path / "speech.wav"), "-o", str(out)]) == 0
    assert out.stat().st_size > 1000
