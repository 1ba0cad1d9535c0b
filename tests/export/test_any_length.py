"""Bundles whose audio encoder takes sound of any length, from PyTorch to a video."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bundles.exports import export
from helpers.bundles.flashhead_once import published_features
from helpers.bundles.small import SMALL, small_networks
from helpers.bundles.small_causal import small_causal_networks
from helpers.media.waves import speech, write_wav

from rap_edge.export.capture.five_graphs import graph_sources
from rap_edge.export.cli import main as rap_export
from rap_edge.models.networks import Networks
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.contract import encode_mode
from rap_edge.runtime.cli.run import main as rap_run
from rap_edge.runtime.engines.sound_encoder import SoundEncoder
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.session.sample_buffer import SampleBuffer
from rap_edge.runtime.session.whole_sound import WholeSound


@pytest.fixture(scope="module")
def networks() -> Networks:
    return small_networks(SMALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, networks: Networks) -> Path:
    folder = tmp_path_factory.mktemp("any length") / "bundle"
    export(networks, folder, chunks=2, audio_encode_mode="once")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 7.0])
def test_the_exported_encoder_gives_chunks_what_the_published_code_gives_them(
    folder: Path, networks: Networks, seconds: float
) -> None:
    sound = speech(seconds)
    heard = WholeSound(SMALL, SoundEncoder(Bundle.open(folder), threads=1))
    buffer = SampleBuffer(SMALL.window_samples)
    buffer.append(sound)
    before = np.zeros(SMALL.carried_frames * SMALL.samples_per_frame, np.float32)
    behind = np.zeros(max(SMALL.chunk_samples - sound.size, 0), np.float32)
    whole = torch.from_numpy(np.concatenate([before, sound, behind]))
    with torch.no_grad():
        expected = published_features(networks.audio_encoder, SMALL, whole)
    assert len(expected) == -(-sound.size // SMALL.chunk_samples)
    for index, features in enumerate(expected):
        np.testing.assert_allclose(heard.features(index, buffer), features.numpy(), atol=2e-4)


@pytest.mark.slow
def test_its_manifest_says_so_and_how_much_memory_it_takes(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    graph = manifest.graphs["audio_encoder"]
    assert encode_mode(manifest) == "once"
    assert graph.inputs[0].shape == (1, "samples")
    assert manifest.parity["graphs"]["audio_encoder"]["psnr"] > 80
    assert graph.memory[-1].frames == 64 * 60 * SMALL.fps
    # What grows with the square of the time is seen: attention's scores.
    first, *_, last = (at.bytes / at.frames for at in graph.memory)
    assert last > 2 * first
    assert all(a.bytes < b.bytes for a, b in pairwise(graph.memory))


@pytest.mark.slow
def test_a_file_is_rendered_once_encoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_wav("speech.wav", speech(2.0))
    words = ["--bundle", str(folder), "--audio", "speech.wav", "--threads", "1"]
    assert rap_run([*words, "--audio-encode-mode", "once"]) == 0
    assert "audio_encoder" in capsys.readouterr().out
    assert Path("speech.mp4").is_file()
    for more in (["--window"], ["--virtual-camera"]):
        with pytest.raises(SystemExit):
            rap_run([*words, "--audio-encode-mode", "once", *more])
        assert "goes with --audio FILE and -o" in capsys.readouterr().err
    for sound in (["--mic"], ["--audio", "-"]):
        with pytest.raises(SystemExit):
            rap_run(["--bundle", str(folder), *sound, "-o", "a.mp4", "--audio-encode-mode", "once"])
        assert "it needs the end of the sound first" in capsys.readouterr().err


def test_a_causal_model_is_refused() -> None:
    with pytest.raises(ExportError, match="is causal and hears sound as it comes"):
        graph_sources(small_causal_networks(), "once")


@pytest.mark.slow
def test_a_bundle_keeps_its_encoder_when_plans_are_added(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bundle", str(folder), "--engine", "tensorrt-rtx", "--audio-encode-mode", "once"]
    assert rap_export(words) == 2
    assert "leave --audio-encode-mode out" in capsys.readouterr().err
