"""Local clients over the tiny bundle: what they say, what they get, and what becomes of those who misbehave."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.local_client import LocalClient
from helpers.serving.local_server import served_locally

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve import cli
from rap_edge.runtime.serve.kiosk import Kiosk
from rap_edge.runtime.serve.local import guest
from rap_edge.runtime.serve.settings import Settings
from rap_edge.runtime.session.chunk import Mark

RATE = 16000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "face.sock"


@pytest.fixture
def kiosk(bundle: Path, path: Path) -> Iterator[Kiosk]:
    with served_locally(bundle, path) as kiosk:
        yield kiosk


def noise(seconds: float) -> np.ndarray:
    return (5000 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).clip(-32768, 32767).astype(np.int16)


def is_free(kiosk: Kiosk) -> bool:
    end = time.monotonic() + 10
    while kiosk.admission.taken and time.monotonic() < end:
        time.sleep(0.01)
    return kiosk.admission.taken == 0


def test_the_face_idles_speaks_with_its_sound_and_idles_again(kiosk: Kiosk, path: Path) -> None:
    pcm = noise(0.5)
    with LocalClient(path) as client:
        assert client.start() == {"type": "ready", "version": 1}
        assert (client.height, client.fps, client.rate) == (TINY.height, TINY.fps, RATE)
        assert client.frame().utterance == -1
        client.push(pcm)
        client.send({"type": "end_utterance"})
        frames = [client.frame()]
        while frames[-1].utterance >= 0 or all(frame.utterance < 0 for frame in frames):
            frames.append(client.frame())
        spoken = [frame for frame in frames if frame.utterance == 0]
        # Half a second, and the rest of its last frame time.
        assert len(spoken) == 13
        assert client.until(event="started")["frame"] == spoken[0].number
        assert client.until(event="ended") == {
            **{"type": "utterance", "event": "ended", "utterance": 0},
            **{"played_ms": 500.0, "frame": spoken[-1].number},
        }
        heard = np.concatenate([frame.sound for frame in spoken])
        assert np.array_equal(heard[: pcm.size], pcm.astype(np.float32) / 2**15)
        assert not heard[pcm.size :].any()
        assert all(Mark.GOOD is tuple(Mark)[frame.mark] for frame in frames)
        assert [frame.number for frame in frames] == list(range(1, len(frames) + 1))
        assert frames[-1].pts == pytest.approx(frames[-1].number / TINY.fps)
        assert not frames[-1].sound.any()


def test_an_interrupt_silences_the_next_frame_and_tells_what_was_heard(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        client.push(noise(5.0))
        started = client.until(event="started")
        while client.frame().number < started["frame"] + 3:
            pass
        client.send({"type": "interrupt"})
        told = client.until(event="interrupted")
        assert told["utterance"] == 0
        assert told["played_ms"] == pytest.approx(40 * (told["frame"] - started["frame"]), abs=1)
        assert told["frame"] - started["frame"] < 50
        while (frame := client.frame()).number < told["frame"]:
            pass
        assert frame.utterance == -1
        assert not frame.sound.any()
        client.push(noise(0.2))
        client.send({"type": "end_utterance"})
        ended = client.until(event="ended")
        assert (ended["utterance"], ended["played_ms"]) == (1, 200.0)


def test_finish_shows_everything_and_then_ends(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        client.push(noise(0.3))
        client.send({"type": "finish"})
        assert client.until(event="ended")["played_ms"] == 300.0
        assert client.told() == {
            "type": "end",
            "reason": "finished",
            "message": "The audio has ended and everything was rendered.",
        }
        assert client.told() is None
    assert is_free(kiosk)


def test_the_metrics_count_what_was_rendered_for_it(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        client.push(noise(0.5))
        client.send({"type": "finish"})
        client.until(type="end")
    text = kiosk.metrics.text()
    assert 'rap_serve_sessions_total{transport="unix"} 1' in text
    assert re.search(r"^rap_serve_chunks_total [1-9]", text, re.M)


def test_finish_without_a_word_ends_at_once(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        client.send({"type": "finish"})
        assert client.until(type="end")["reason"] == "finished"


def test_sound_behind_finish_is_passed_over(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        client.push(noise(0.2))
        client.send({"type": "finish"})
        client.push(noise(0.2))
        assert "has been finished" in client.until(type="notice")["message"]
        assert client.until(event="ended")["played_ms"] == 200.0


def test_an_end_of_nothing_does_nothing(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        for _ in range(3):
            client.push(noise(0.0))
            client.send({"type": "end_utterance"})
        client.push(noise(0.1))
        client.send({"type": "end_utterance"})
        assert client.until(type="utterance")["utterance"] == 0
        assert client.until(event="ended")["played_ms"] == 100


@pytest.mark.parametrize(
    ("message", "data", "words"),
    [
        ({"type": "sing"}, b"", "may be asked for"),
        ({"rate": 16000}, b"", "may be asked for"),
        ({"type": "audio", "bytes": 3}, b"abc", "whole number of s16le samples"),
    ],
)
def test_what_is_not_taken_is_passed_over_with_a_sentence(
    kiosk: Kiosk, path: Path, message: dict, data: bytes, words: str
) -> None:
    with LocalClient(path) as client:
        client.start()
        client.send(message, data)
        assert words in client.until(type="notice")["message"]
        client.push(noise(0.1))
        client.send({"type": "finish"})
        assert client.until(event="ended")["played_ms"] == 100.0


def test_samples_that_are_no_numbers_are_passed_over(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start(format="f32le")
        client.send({"type": "audio", "bytes": 8}, np.array([0.1, np.nan], "<f4").tobytes())
        assert client.until(type="notice")
        client.send({"type": "audio", "bytes": 8}, np.array([0.1, 0.2], "<f4").tobytes())
        client.send({"type": "finish"})
        assert client.until(event="ended")["utterance"] == 0


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"\x00\xff\xfe garbage\n", "UTF-8"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "not JSON"),
        (b"x" * 1_000_000, "longer than"),
        (b'{"type": "audio", "bytes": -1}\n', '"bytes"'),
        (b"[" * 5000 + b"\n", "longer than"),
    ],
)
@pytest.mark.parametrize("started", [False, True])
def test_what_nobody_can_read_ends_it_with_a_sentence(
    kiosk: Kiosk, path: Path, sent: bytes, words: str, started: bool
) -> None:
    with LocalClient(path) as client:
        if started:
            client.start()
        try:
            client.socket.sendall(sent)
        except ConnectionError:
            assert len(sent) > 100_000
        told = client.until(type="end")
        assert told["reason"] == ("bad-message" if started else "bad-start")
        if started or b"audio" not in sent:
            assert words in told["message"]
    assert is_free(kiosk)


def test_whatever_comes_the_next_client_is_served(kiosk: Kiosk, path: Path) -> None:
    rng = np.random.default_rng(2)
    hello = b'{"type": "start", "rate": 16000}\n'
    said = [b'{"type": "audio", "bytes": 40}\n' + bytes(40), b'{"type": "interrupt"}\n', b'{"type": "end_utterance"}\n']
    for number in range(60):
        with LocalClient(path) as client:
            lines = hello * (number % 4 > 0) + b"".join(said[i] for i in rng.integers(3, size=10))
            garbage = bytearray(lines)
            for place in rng.integers(len(garbage), size=rng.integers(4)):
                garbage[place] = rng.integers(256)
            client.socket.sendall(garbage[: rng.integers(1, len(garbage) + 1)])
            client.socket.shutdown(socket.SHUT_WR)
            while client.told() is not None:
                pass
    assert is_free(kiosk)
    with LocalClient(path) as client:
        assert client.start()["type"] == "ready"
        client.frame()


@pytest.mark.parametrize("fault", [OSError(24, "Too many open files"), ConnectionResetError()])
def test_frames_that_cannot_be_shared_give_the_place_back(
    kiosk: Kiosk, path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    def fail(*_: object) -> None:
        raise fault

    with LocalClient(path) as client, monkeypatch.context() as patch:
        patch.setattr(guest.os, "dup", fail)
        told = client.start()
        assert told["type"] == "end"
    assert is_free(kiosk)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 2}, "build the client of this release"),
        ({"rate": 4}, "rate must be"),
        ({"rate": None}, "rate must be"),
        ({"format": "mp3"}, "format must be one of"),
        ({"channels": 2}, "Only mono"),
        ({"portrait": "p99"}, "not here any more"),
        ({"portrait": 5}, "portrait"),
        ({"type": "interrupt"}, "first message must be"),
        ({"type": "watch", "session": "s", "token": "t"}, "first message must be"),
    ],
)
def test_a_start_that_cannot_be_is_refused_with_a_sentence(kiosk: Kiosk, path: Path, fields: dict, words: str) -> None:
    with LocalClient(path) as client:
        told = client.start(**fields)
        assert told["reason"] == "bad-start"
        assert words in told["message"]
        assert client.told() is None
    assert kiosk.admission.taken == 0


def test_a_client_that_says_nothing_is_shown_out(kiosk: Kiosk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_START_SECONDS", 0.05)
    with LocalClient(path) as client:
        assert "No start message" in client.until(type="end")["message"]


def test_no_more_clients_have_a_place_than_the_machine_holds(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as first, LocalClient(path) as second, LocalClient(path) as third:
        first.start()
        assert second.start()["type"] == "ready"
        told = third.start()
        assert (told["type"], told["reason"]) == ("end", "full")
        assert "try again" in told["message"]
        first.close()
        first.descriptors = []
        deadline = time.monotonic() + 10
        while kiosk.admission.taken == 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        with LocalClient(path) as fourth:
            assert fourth.start()["type"] == "ready"
            # Each has frames of its own.
            second.push(noise(1.0))
            second.until(event="started")
            assert all(fourth.frame().utterance == -1 for _ in range(5))


def test_a_crowd_that_never_starts_is_turned_away(kiosk: Kiosk, path: Path) -> None:
    waiting = []
    try:
        for _ in range(40):
            waiting.append(LocalClient(path))
        assert waiting[-1].until(type="end")["reason"] == "full"
    finally:
        for client in waiting:
            client.close()


def test_a_storm_of_interrupts_harms_no_other_client(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as calm, LocalClient(path) as wild:
        calm.start()
        wild.start()
        calm.push(noise(1.0))
        calm.send({"type": "end_utterance"})
        for _ in range(50):
            wild.socket.sendall(b'{"type": "interrupt"}\n' * 40)
            wild.push(noise(0.01))
        assert calm.until(event="ended")["played_ms"] == 1000.0
        wild.send({"type": "interrupt"})
        wild.push(noise(0.1))
        wild.send({"type": "finish"})
        assert wild.until(type="end")["reason"] == "finished"


def test_a_client_that_never_reads_costs_itself_alone(
    kiosk: Kiosk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "_MOST_UNREAD", 1000)
    with LocalClient(path) as calm, LocalClient(path) as deaf:
        calm.start()
        deaf.start()
        deaf.socket.settimeout(0.5)
        try:
            # Every line gets an answer.
            for _ in range(300):
                deaf.socket.sendall(b'{"type": "nothing"}\n' * 50)
        except (TimeoutError, ConnectionError):
            pass
        deadline = time.monotonic() + 10
        while kiosk.admission.taken == 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kiosk.admission.taken == 1
        calm.push(noise(0.1))
        calm.send({"type": "finish"})
        assert calm.until(event="ended")["played_ms"] == 100.0


def test_frames_that_nobody_reads_hold_nobody_up(kiosk: Kiosk, path: Path) -> None:
    with LocalClient(path) as client:
        client.start()
        while client.published < client.slots + 2:
            time.sleep(0.02)
        client.send({"type": "finish"})
        assert client.until(type="end")["reason"] == "finished"


def test_a_client_far_ahead_of_what_is_heard_is_read_no_faster(
    kiosk: Kiosk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "MOST_SECONDS", 0.5)
    with LocalClient(path) as client:
        client.start()
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.socket.sendall((b'{"type": "audio", "bytes": 160000}\n' + bytes(160000)) * 20)
    # It is missed all the same.
    assert is_free(kiosk)


KILLED = """
import sys, pathlib, time
from helpers.serving.local_client import LocalClient
client = LocalClient(pathlib.Path(sys.argv[1]))
client.start()
client.socket.sendall(b'{"type": "audio", "bytes": 64000}\\n' + bytes(1000))
client.frame()
print("here", flush=True)
time.sleep(60)
"""


def test_a_client_that_is_killed_leaves_the_server_well_and_nothing_behind(kiosk: Kiosk, path: Path) -> None:
    before, descriptors = os.listdir("/dev/shm"), len(os.listdir("/proc/self/fd"))
    helpers = Path(__file__).parents[3]
    client = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(helpers)},
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "here\n"
    client.kill()
    client.wait()
    client.stdout.close()
    assert is_free(kiosk)
    assert set(os.listdir("/dev/shm")) <= set(before)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with LocalClient(path) as other:
        assert other.start()["type"] == "ready"


def test_a_server_that_stops_says_so(bundle: Path, path: Path) -> None:
    with served_locally(bundle, path):
        client, waiting = LocalClient(path), LocalClient(path)
        client.start()
        client.push(noise(5.0))
    for one in (client, waiting):
        told = one.until(type="end")
        assert told["reason"] in ("stopping", "full")
        assert "switched off" in told["message"]
        one.close()


def test_the_socket_is_for_this_user_alone(kiosk: Kiosk, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_is_told_whose_socket_it_is(kiosk: Kiosk, path: Path) -> None:
    for folder in path.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); print(s.recv(999).decode())"
    command = ["/usr/bin/python3", "-c", code]
    stranger = subprocess.run(command, user=65534, capture_output=True, text=True, cwd="/", check=False)
    assert "PermissionError" in stranger.stderr
    path.chmod(0o666)
    stranger = subprocess.run(command, user=65534, capture_output=True, text=True, cwd="/", check=False)
    assert "not for user 65534; run the client as that user." in json.loads(stranger.stdout)["message"]


def test_elsewhere_than_on_linux_it_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    Settings().validate()
    with pytest.raises(ServeError, match="needs Linux"):
        Settings(unix=path).validate()


def test_without_it_nothing_is_imported_that_linux_alone_has() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import rap_edge.runtime.serve.cli, rap_edge.runtime.serve.server"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_page_and_socket_share_their_places_until_a_signal(bundle: Path, path: Path) -> None:
    command = [sys.executable, "-m", "rap_edge.runtime.serve.cli", "--bundle", str(bundle), "--unix", str(path)]
    command += ["--port", "0", "--max-sessions", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == f"rap-serve: local clients connect to {path}\n"
    page = server.stdout.readline().split()[-1]
    with LocalClient(path) as client:
        client.start()
        client.frame()
        with urllib.request.urlopen(f"{page}healthz") as answer:
            assert json.load(answer) == {"status": "ok", "sessions": 1, "sessions_max": 1}
        server.send_signal(signal.SIGTERM)
        assert client.until(type="end")["reason"] == "stopping"
    out, complaints = server.communicate(timeout=20)
    assert server.returncode == 0, complaints
    assert out == ""
    assert "Traceback" not in complaints
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "port", "host"),
    [
        ([], None, "127.0.0.1"),
        (["--port", "80"], 80, "127.0.0.1"),
        (["--host", "localhost"], 8080, "localhost"),
    ],
)
def test_a_page_is_served_beside_the_socket_only_where_it_is_asked_for(
    arguments: list[str], port: int | None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Settings] = []

    def stop(_: str, settings: Settings) -> None:
        asked.append(settings)
        raise ServeError("enough.")

    monkeypatch.setattr("rap_edge.runtime.serve.server.open_kiosk", stop)
    assert cli.main(["--bundle", "b", "--unix", "face.sock", *arguments]) == 2
    assert [(settings.port, settings.host, settings.unix) for settings in asked] == [(port, host, Path("face.sock"))]
