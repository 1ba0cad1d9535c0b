"""Every example is run as its reader would run it."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.virtual_sound import missing_pulse, pulse_server
from helpers.places import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=16000, layout="mono")
        pcm = np.random.default_rng(0).integers(-9000, 9000, (1, 32000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def run(name: str, *arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def seconds(path: Path) -> float:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0)) / float(file.streams.video[0].average_rate)


def test_sentences_are_spoken_one_by_one_into_one_video(bundle, tmp_path):
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    done = run("tts.py", bundle, tmp_path / "out.mp4", input="Good morning.\nHow are you today?\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["said 'Good morning.'", "said 'How are you today?'"]
    assert 1.5 < seconds(tmp_path / "out.mp4") < 6.0


def test_many_clips_are_rendered_and_a_bad_one_stops_no_other(bundle, speech, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    other = tmp_path / "other.wav"
    other.write_bytes(speech.read_bytes())
    done = run("render_many.py", bundle, tmp_path / "out", speech, bad, other)
    assert done.returncode == 1
    assert f"{bad}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["other.mp4", "speech.mp4"]
    assert seconds(tmp_path / "out" / "other.mp4") == pytest.approx(2.0, abs=0.04)


def test_two_clips_of_one_name_are_refused_before_one_replaces_the_other(bundle, speech, tmp_path):
    done = run("render_many.py", bundle, tmp_path / "out", speech, speech.with_suffix(".ogg"))
    assert done.returncode == 1
    assert "one name" in done.stderr
    assert not (tmp_path / "out").exists()


def drive_widget(bundle: Path, folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder` that has an `application`, an `avatar` and `AvatarWidget`."""
    pytest.importorskip("PySide6", reason="PySide6 is not installed")
    script = folder / "drive.py"
    script.write_text(
        f"""
import sys, threading
import numpy as np
sys.path.insert(0, {str(EXAMPLES)!r})
from PySide6.QtWidgets import QApplication
from pyside_widget import AvatarWidget
from rap_edge.runtime import Avatar, read_audio, to_mono
application = QApplication([])
with Avatar.open({str(bundle)!r}) as avatar:
{textwrap.indent(body, "    ")}
"""
    )
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    return subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, cwd=folder, timeout=120
    )


def test_the_widget_shows_the_avatar_and_says_when_it_has_spoken(bundle, speech, tmp_path):
    body = f"""
source = read_audio({str(speech)!r})
widget = AvatarWidget(avatar, source.rate)
seen = []
widget.started.connect(lambda: seen.append("started"))
widget.spoken.connect(lambda: (seen.append("spoken"), widget.grab().save("widget.png"), application.quit()))
for block in source:
    widget.push(to_mono(block))
source.close()
widget.finish()
widget.show()
application.exec()
widget.close()
print(seen)
"""
    done = drive_widget(bundle, tmp_path, body)
    assert done.returncode == 0, done.stderr
    assert "['started', 'spoken']" in done.stdout
    with av.open(str(tmp_path / "widget.png")) as file:
        picture = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (512, 512, 3)
    assert picture.std() > 1.0


def test_the_widget_may_be_closed_while_it_speaks(bundle, tmp_path):
    body = """
widget = AvatarWidget(avatar, 16000)
widget.started.connect(application.quit)
widget.push(np.zeros(16000 * 600, np.float32))
widget.show()
application.exec()
widget.close()
avatar.close()
print(threading.active_count())
"""
    done = drive_widget(bundle, tmp_path, body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def window_is_open() -> bool:
    active = subprocess.run(["xdotool", "getactivewindow", "getwindowname"], capture_output=True, text=True)
    return active.stdout.strip() == "rap-edge"


@pytest.mark.skipif(missing_pulse() is not None, reason=missing_pulse() or "")
def test_the_kiosk_shows_whoever_speaks_until_its_window_is_closed(bundle, screen, tmp_path):
    with pulse_server(tmp_path) as server:
        environment = server.environment | {
            "ALSA_CONFIG_PATH": str(server.config),
            "DISPLAY": os.environ["DISPLAY"],
            "SDL_VIDEODRIVER": "x11",
            "SDL_AUDIODRIVER": "dummy",
        }
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "kiosk.py"), str(bundle)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # The window closes itself for nobody: q is pressed until the process has ended.
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
            if window_is_open():
                time.sleep(3.0)
                subprocess.run(["xdotool", "key", "q"], check=True)
        process.kill()
        out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "picture to sound" in out


def test_the_examples_are_short_enough_to_read():
    lines = (EXAMPLES / "kiosk.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 36
