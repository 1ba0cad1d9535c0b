"""The model that ships, exported and run by the torch-free runtime on speech, voices and faces it has never seen."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from goals import bundle_model

from rap_edge.models.nano.measure import mouth as measure
from rap_edge.models.nano.measure.held_out import Subject
from rap_edge.models.presets import NANO
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.cli.run import main
from rap_edge.runtime.doctor.selftest import run_selftest


def test_the_preset_is_the_shipped_spec(nano_bundle: Path) -> None:
    assert Bundle.open(nano_bundle).manifest.spec == NANO


def test_the_graphs_agree_with_pytorch(nano_bundle: Path) -> None:
    parity = Bundle.open(nano_bundle).manifest.parity
    assert min(figures["psnr"] for figures in parity["graphs"].values()) > 60
    assert parity["rollout"]["chunks"] == 8


def test_the_selftest_passes(nano_bundle: Path) -> None:
    assert run_selftest(Bundle.open(nano_bundle)).passed


def test_the_mouth_follows_held_out_speech_and_not_another_one(nano_bundle: Path) -> None:
    talk = bundle_model(nano_bundle).talk
    subjects = [Subject.sample(index, frames=100, size=NANO.height) for index in range(3)]
    found = np.stack([subject.gauge.opening(talk(subject.portrait, subject.waveform, 0)) for subject in subjects])
    truth = np.stack([subject.mouth[:, 0] for subject in subjects])
    right = measure.correlation(found, truth)
    assert right > 0.6
    assert right > measure.correlation(np.roll(found, 1, axis=0), truth) + 0.3


def test_the_mouth_is_closed_in_silence(nano_bundle: Path) -> None:
    subject = Subject.sample(0, frames=75, size=NANO.height, silent=True)
    opening = subject.gauge.opening(bundle_model(nano_bundle).talk(subject.portrait, subject.waveform, 0))
    assert measure.closedness(opening, subject.mouth[:, 0]) > 0.9


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
