"""`rap-run` as its own process with real pipes, a real PortAudio and a real SDL."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.virtual_sound import file_microphone, missing_pulse, pulse_server

from rap_edge.runtime.cli import run as cli


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def rap_run(bundle: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "rap_edge.runtime.cli.run", "--bundle", str(bundle), "--threads", "1", *arguments]


def lengths(path: Path) -> tuple[float, float]:
    """Seconds of picture and of sound."""
    with av.open(str(path)) as file:
        frames = sum(1 for _ in file.decode(video=0))
        rate = float(file.streams.video[0].average_rate)
    with av.open(str(path)) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
        return frames / rate, samples / file.streams.audio[0].rate


def noise(seconds: float, rate: int) -> bytes:
    pcm = np.random.default_rng(0).integers(-8000, 8000, round(seconds * rate))
    return pcm.astype("<i2").tobytes()


def test_sound_from_a_pipe_of_unknown_length_becomes_a_video_of_its_length(bundle, tmp_path):
    command = rap_run(bundle, "--audio", "-", "--rate", "22050", "-o", "out.mp4", "--report", "out.json")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    data = noise(3.0, 22050)
    for start in range(0, len(data), 7777):
        process.stdin.write(data[start : start + 7777])
        process.stdin.flush()
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    picture, sound = lengths(tmp_path / "out.mp4")
    assert picture == pytest.approx(3.0, abs=0.04)
    assert sound == pytest.approx(3.0, abs=0.05)
    assert json.loads((tmp_path / "out.json").read_text())["audio_seconds"] == pytest.approx(3.0, abs=1e-3)


def test_a_wav_from_a_pipe_keeps_its_own_rate_and_what_looks_wrong_is_warned_of(bundle, tmp_path):
    header = b"RIFF\xff\xff\xff\xffWAVEfmt " + np.array([16, 1 | 1 << 16, 24000, 48000, 2 | 16 << 16], "<u4").tobytes()
    command = rap_run(bundle, "--audio", "-", "-o", "out.mp4", "--report", "out.json")
    stream = header + b"data\xff\xff\xff\xff" + noise(1.0, 24000)
    done = subprocess.run(command, input=stream, capture_output=True, cwd=tmp_path, timeout=60, check=True)
    assert b"look like" not in done.stdout + done.stderr
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.audio[0].rate == 24000
    assert json.loads((tmp_path / "out.json").read_text())["audio_seconds"] == pytest.approx(1.0, abs=1e-3)
    tone = (0.3 * np.sin(np.arange(16000) * 0.1)).astype("<f4").tobytes()
    done = subprocess.run(command, input=tone, capture_output=True, cwd=tmp_path, timeout=60, check=True)
    assert b"does not look like s16le: these may be 32 bit floats" in done.stdout + done.stderr


def test_float_pcm_that_is_read_as_something_else_is_one_sentence(bundle, tmp_path):
    command = rap_run(bundle, "--audio", "-", "--format", "f32le", "-o", "out.mp4")
    done = subprocess.run(command, input=b"\x00\x00\xc0\x7f" * 100, capture_output=True, cwd=tmp_path)
    assert done.returncode == 2
    sentence = done.stderr.decode().strip().splitlines()[-1]
    assert sentence.startswith("rap-run: ")
    assert "--format" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--audio", "a.wav", "--rate", "16000"], "a file states its own"),
        (["--audio", "a.wav", "--device", "x"], "--device goes with --mic"),
        (["--mic", "--fragmented"], "--fragmented goes with -o"),
        (["--mic", "--format", "s16le"], "--format goes with"),
        (["--audio", "a.wav", "--mic"], "not allowed with"),
        (["--mic", "--window", "-o", "x.mp4"], "not allowed with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(bundle, capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--bundle", str(bundle), *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_latency_that_no_chunk_has_is_one_sentence(bundle, capsys):
    assert cli.main(["--bundle", str(bundle), "--audio", "a.wav", "--latency", "0.01"]) == 2
    assert "the shortest lasts" in capsys.readouterr().err


def without_display() -> dict[str, str]:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY")
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"SDL_VIDEODRIVER": "x11"}


def test_a_microphone_without_a_display_says_how_to_get_a_picture(bundle, tmp_path):
    pytest.importorskip("sounddevice", reason="sounddevice is not installed", exc_type=(ImportError, OSError))
    pytest.importorskip("sdl2", reason="PySDL2 is not installed")
    config = file_microphone(tmp_path, np.zeros((16000, 1), np.int16), 16000)
    done = subprocess.run(
        rap_run(bundle, "--mic"),
        env=without_display() | {"ALSA_CONFIG_PATH": str(config)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "-o out.mp4" in done.stderr.decode().strip().splitlines()[-1]


def test_the_microphones_are_listed_without_a_bundle(tmp_path):
    pytest.importorskip("sounddevice", reason="sounddevice is not installed", exc_type=(ImportError, OSError))
    config = file_microphone(tmp_path, np.zeros((16000, 1), np.int16), 16000)
    done = subprocess.run(
        [sys.executable, "-m", "rap_edge.runtime.cli.run", "--list-devices"],
        env=os.environ | {"ALSA_CONFIG_PATH": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "speechfile" in done.stdout or "default" in done.stdout


@pytest.mark.skipif(missing_pulse() is not None, reason=missing_pulse() or "")
def test_ctrl_c_ends_a_microphone_and_the_video_holds_what_was_heard(bundle, tmp_path):
    with pulse_server(tmp_path) as server:
        process = subprocess.Popen(
            rap_run(bundle, "--mic", "-o", "out.mp4", "--report", "out.json"),
            env=server.environment | {"ALSA_CONFIG_PATH": str(server.config)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".out.mp4.*.part")) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(4.0)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130), errors.decode()
    picture, sound = lengths(tmp_path / "out.mp4")
    assert picture > 1.0
    assert picture == pytest.approx(sound, abs=0.1)
    assert json.loads((tmp_path / "out.json").read_text())["chunks"] > 0
