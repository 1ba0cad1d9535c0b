"""The client in C: built by every compiler without a complaint, and tried under the sanitizers."""

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.pages import BLOCKS
from helpers.places import ROOT, TESTS
from helpers.serving.local_server import served_locally

from rap_edge.runtime.serve.local import ring
from rap_edge.runtime.serve.local.control import encoded
from rap_edge.runtime.serve.local.ring import FrameRing
from rap_edge.runtime.session.chunk import Mark
from rap_edge.runtime.session.stream_core import StreamFrame

CLIENT = ROOT / "clients" / "c"
PROGRAMS = TESTS / "helpers" / "clients"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-Wconversion"]
# Sanitizers that look at one program together.
SANITIZERS = ("address,undefined,float-cast-overflow", "thread")
ENVIRONMENT = os.environ | {"UBSAN_OPTIONS": "halt_on_error=1", "TSAN_OPTIONS": "halt_on_error=1"}
NOISE = (5000 * np.random.default_rng(0).standard_normal(8000)).astype("<i2")

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the client in C is built by gcc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return write_tiny_bundle(folder / "bundle")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "face.sock"


@functools.cache
def compiled(folder: Path, source: Path, sanitizer: str) -> Path:
    """A program with the client in it; the hammer has it inside."""
    program = folder / f"{source.stem}-{sanitizer}"
    client = [] if source.stem == "ring_hammer" else [CLIENT / "rap_edge_client.c"]
    # The thread sanitizer does not know fences; what they order is atomic, so it has nothing to complain of.
    options = ["-std=gnu99", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-tsan", f"-fsanitize={sanitizer}"]
    command = ["gcc", *options, "-fno-sanitize-recover=all", f"-I{CLIENT}", source, *client, "-o", program, "-pthread"]
    subprocess.run(command, check=True)
    return program


def done(*command: object, **settings: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, command)), capture_output=True, timeout=30, check=False, env=ENVIRONMENT, **settings
    )


@pytest.mark.parametrize("compiler", ["gcc -std=c99", "g++ -x c++ -std=c++11", "g++ -x c++ -std=c++20"])
@pytest.mark.parametrize("source", ["rap_edge_client.c", "examples/frame_times.c"])
def test_it_is_compiled_without_a_warning(compiler: str, source: str, tmp_path: Path) -> None:
    command = [*compiler.split(), *WARNINGS, "-O2", f"-I{CLIENT}", "-c", CLIENT / source, "-o", tmp_path / "object"]
    built = done(*command)
    assert built.returncode == 0, built.stderr.decode()


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_no_frame_is_torn_however_fast_it_is_overwritten(folder: Path, sanitizer: str) -> None:
    hammered = done(compiled(folder, PROGRAMS / "ring_hammer.c", sanitizer))
    assert hammered.returncode == 0, hammered.stderr.decode()
    seen, lost = map(int, re.findall(rb"\d+", hammered.stdout))
    assert seen > 0
    assert lost > 0


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_one_thread_speaks_while_another_one_looks_on(folder: Path, bundle: Path, path: Path, sanitizer: str) -> None:
    with served_locally(bundle, path):
        seen = done(compiled(folder, PROGRAMS / "two_threads.c", sanitizer), path)
    assert seen.returncode == 0, seen.stderr.decode()
    whole, ended, interrupted, lost, *reason = seen.stdout.decode().split()
    assert (whole, lost) == ("1", "0")
    # Three that are interrupted and a short one behind each; all are over in one way or the other.
    assert int(ended) + int(interrupted) == 6
    assert int(interrupted) >= 3
    assert " ".join(reason) == "The audio has ended and everything was rendered."


def test_the_pages_program_writes_a_face_that_speaks(folder: Path, bundle: Path, path: Path, tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.language == "c"]
    assert block.page.name == "local.md"
    assert len(block.text.splitlines()) < 40
    (tmp_path / "program.c").write_text(block.text)
    command = ["gcc", "-std=c99", *WARNINGS, f"-I{CLIENT}", tmp_path / "program.c", CLIENT / "rap_edge_client.c"]
    subprocess.run([*command, "-o", tmp_path / "program"], check=True)
    with served_locally(bundle, path):
        seen = done(tmp_path / "program", path, input=NOISE.tobytes())
        assert done(tmp_path / "program", tmp_path / "nowhere").returncode == 1
    assert seen.returncode == 0
    assert b"500 ms were said\nThe audio has ended" in seen.stderr
    frames = np.frombuffer(seen.stdout, np.uint8).reshape(-1, *TINY.image_size, 3)
    assert len(frames) > 13
    # The tiny model is the brighter the louder it speaks.
    assert frames.mean(axis=(1, 2, 3)).max() > frames[0].mean() + 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere/face.sock"], "There is no server at /nowhere/face.sock (No such file"),
        (["/" + "x" * 200], "longer than 107 bytes"),
    ],
)
def test_where_no_server_is_it_says_so(folder: Path, arguments: list[str], words: str) -> None:
    program = compiled(folder, PROGRAMS / "two_threads.c", SANITIZERS[0])
    failed = done(program, *arguments)
    assert failed.returncode == 1
    assert words in failed.stderr.decode()


def test_a_server_without_a_place_says_so(folder: Path, bundle: Path, path: Path) -> None:
    with served_locally(bundle, path, max_sessions=1) as kiosk:
        place = kiosk.admission.take()
        failed = done(compiled(folder, PROGRAMS / "two_threads.c", SANITIZERS[0]), path)
        place.release()
    assert failed.returncode == 1
    assert failed.stderr.decode() == "This machine can animate one visitor at a time; try again in a moment.\n"


@contextmanager
def pretended(path: Path, answer: bytes, *, shared: bool = True) -> Iterator[None]:
    """Something else at the socket: it answers one client with these bytes, frames, and goes."""
    frames = FrameRing((64, 64), 25, 16000)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer_one() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            socket.send_fds(connection, [answer[:1]], [frames.memory, frames.bell] if shared else [])
            picture, sound = np.zeros((64, 64, 3), np.uint8), np.zeros(640, np.float32)
            frames.publish(StreamFrame(picture, sound, 0.0, None, Mark.GOOD))
            connection.sendall(answer[1:])

    thread = threading.Thread(target=answer_one)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        listener.close()
        frames.close()


READY = encoded({"type": "ready", "version": 1})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\n", "no server of rap-edge"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no server of rap-edge"),
        (b'{"type": "ready"', "does not answer"),
        (b"x" * 5000, "does not answer"),
        (
            encoded({"type": "end", "reason": "full", "message": 'Say "please" first \\ now.'}),
            'Say "please" first \\ now.',
        ),
    ],
)
def test_an_answer_that_is_none_is_a_sentence(folder: Path, path: Path, answer: bytes, words: str) -> None:
    with pretended(path, answer):
        failed = done(compiled(folder, PROGRAMS / "two_threads.c", SANITIZERS[0]), path)
    assert failed.returncode == 1, failed.stderr.decode()
    assert words in failed.stderr.decode()


def test_a_server_that_shares_nothing_is_a_sentence(folder: Path, path: Path) -> None:
    with pretended(path, READY, shared=False):
        failed = done(compiled(folder, PROGRAMS / "two_threads.c", SANITIZERS[0]), path)
    assert (failed.returncode, b"shared no frames" in failed.stderr) == (1, True)


def test_frames_of_another_version_are_a_sentence(folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "LAYOUT_VERSION", 2)
    with pretended(path, READY):
        failed = done(compiled(folder, PROGRAMS / "two_threads.c", SANITIZERS[0]), path)
    assert failed.returncode == 1
    assert b"another version; use the client of its release" in failed.stderr


LINES = [
    b"\0\0\0\n",
    b"{}\n",
    b'{"type": "utterance"}\n',
    b'{"type": "utterance", "event": "ended", "utterance": 1e400, "played_ms": -1e300, "frame": nan}\n',
    b'{"type": "utterance", "event": "ended", "utterance": "9", "played_ms": ""}\n',
    b'{"type": "utterance", "event": "started", "utterance": -5, "frame": -7}\n',
    b'{"type": "notice", "message": "' + b"a" * 3000 + b'"}\n',
    b'{"type": "notice", "message": "\\\\\\"\\u00e4"}\n',
    b'{"type": "notice", "message": "open\n',
    b'{"type": "notice", "message": "\\\n',
    b'{"deep": {"type": "end"}, "list": [1, {"a": "}"}], "type": "notice", "message": "m"}\n',
    b"}}}}]]]]\n" * 100,
    b'{"type":"end","message":""}\n',
    b'{"type":"end","message":"a"}\n{"type":"end","message":"b"}\n',
]


def test_lines_of_another_kind_do_no_harm_under_the_sanitizers(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cut = [bytes(line[: rng.integers(len(line))]) + b"\n" for line in LINES for _ in range(3)]
    swapped = [bytes(rng.permutation(list(line))) for line in LINES]
    program = compiled(folder, CLIENT / "examples" / "frame_times.c", SANITIZERS[0])
    for number, said in enumerate([*LINES, b"".join(cut), b"".join(swapped), b"y" * 9000]):
        path = tmp_path / f"{number}.sock"
        with pretended(path, READY + said):
            seen = done(program, path, 1000, input=b"")
        assert seen.returncode == 0, (said, seen.stderr.decode())
        # The frame that came before, whatever else did.
        assert len(seen.stdout.splitlines()) == 1


def test_a_server_that_is_killed_leaves_the_client_well(folder: Path, bundle: Path, path: Path) -> None:
    program = compiled(folder, CLIENT / "examples" / "frame_times.c", SANITIZERS[0])
    before = set(os.listdir("/dev/shm"))
    command = ["rap_edge.runtime.serve.cli", "--bundle", str(bundle), "--unix", str(path)]
    server = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    server.stdout.readline()
    client = subprocess.Popen(
        [program, path, "100000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    time.sleep(0.3)
    server.send_signal(signal.SIGKILL)
    server.communicate()
    out, complaints = client.communicate(timeout=20)
    assert client.returncode == 0, complaints.decode()
    assert complaints == b"The server is gone.\n"
    assert len(out.splitlines()) > 1
    assert set(os.listdir("/dev/shm")) <= before
