import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from aiohttp import ClientSession
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.kiosk_client import listen, start

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve import cli
from rap_edge.runtime.serve.settings import Settings

TOKEN = "a-token-of-enough-letters"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def rap_serve(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rap_edge.runtime.serve.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_exits_cleanly(bundle: Path, number: signal.Signals) -> None:
    server = rap_serve("--bundle", bundle, "--port", 0)
    address = server.stdout.readline().split()[-1]
    with urllib.request.urlopen(f"{address}healthz") as answer:
        assert json.load(answer)["status"] == "ok"
    server.send_signal(number)
    out, complaints = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "Traceback" not in complaints
    assert "real-time factor" in complaints
    assert out == ""


def test_a_drained_server_waits_for_its_visitor_and_a_second_signal_does_not(bundle: Path) -> None:
    async def scenario(address: str) -> None:
        async with ClientSession() as client, client.ws_connect(f"{address}api/stream") as visitor:
            assert (await start(visitor))["type"] == "ready"
            server.send_signal(signal.SIGTERM)
            while (await (await client.get(f"{address}healthz")).json())["status"] != "draining":
                await asyncio.sleep(0.05)
            assert server.poll() is None
            server.send_signal(signal.SIGTERM)
            _, texts = await listen(visitor)
            assert texts[-1]["reason"] == "stopping"

    server = rap_serve("--bundle", bundle, "--port", 0, "--drain", 60)
    asyncio.run(asyncio.wait_for(scenario(server.stdout.readline().split()[-1]), 60))
    _, complaints = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "Traceback" not in complaints


def test_an_empty_server_that_is_drained_exits_at_once(bundle: Path) -> None:
    server = rap_serve("--bundle", bundle, "--port", 0, "--drain", 600, RAP_SERVE_TICKET_KEY="k" * 32)
    server.stdout.readline()
    server.send_signal(signal.SIGTERM)
    _, complaints = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "tickets alone" in complaints


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "token is needed"),
        (["--host", "::"], "token is needed"),
        (["--host", "example.org", "--token", "short"], "too short"),
        (["--port", "70000"], "does not exist"),
        (["--max-sessions", "0"], "--max-sessions"),
        (["--max-sessions", "65"], "--max-sessions"),
        (["--max-sessions", "9" * 40], "--max-sessions"),
        (["--idle-seconds", "nan"], "--idle-seconds"),
        (["--idle-seconds", "1e300"], "--idle-seconds"),
        (["--latency", "nan"], "--latency"),
        (["--latency", "-1"], "--latency"),
        (["--latency", "inf"], "--latency"),
        (["--port", "-1"], "does not exist"),
        (["--token", "with spaces in the token"], "spaces"),
        (["--token", "x" * 2000], "1024"),
        (["--origin", "kiosk.example"], "--origin"),
        (["--origin", "https://kiosk.example/page"], "--origin"),
        (["--origin", "https://user@kiosk.example"], "--origin"),
        (["--origin", "https://kiosk.example:0x50"], "--origin"),
        (["--origin", "ftp://kiosk.example"], "--origin"),
        (["--origin", "\x1b[31m"], r"\x1b"),
        (["--ice-server", "http://stun.example"], "no STUN"),
        (["--public-url", "box1.example"], "--public-url"),
        (["--public-url", "https://box1.example/page"], "--public-url"),
        (["--tls-cert", "a.pem"], "--tls-key"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "cannot be used"),
        (["--engine", "tensorrt"], "tensorrt"),
        (["--latency", "0.001"], "0.001"),
        (["--portrait", "missing.png"], "does not exist"),
    ],
)
def test_what_is_unsafe_or_wrong_is_refused_with_a_sentence(
    bundle: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAP_SERVE_TOKEN", raising=False)
    assert cli.main(["--bundle", str(bundle), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ticket_key": "short"}, "at least 32"),
        ({"ticket_key": "k" * 32, "token": TOKEN}, "have no token"),
        ({"ticket_key": "k" * 32, "unix": Path("kiosk")}, "without a ticket"),
        ({"operator_token": "short"}, "operator's token is too short"),
        ({"operator_token": TOKEN, "token": TOKEN}, "choose another one"),
        ({"drain": float("nan")}, "--drain"),
        ({"share": 0.0}, "--share"),
    ],
)
def test_secrets_that_do_not_protect_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ServeError, match=words) as error:
        Settings(**settings).validate()
    assert TOKEN not in str(error.value)


def test_tickets_let_in_whoever_comes_from_another_machine() -> None:
    Settings(host="0.0.0.0", ticket_key="k" * 32).validate()
    assert "k" * 32 not in repr(Settings(ticket_key="k" * 32, operator_token="k" * 32))


def test_a_port_in_use_is_a_sentence(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["--bundle", str(bundle), "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    Settings(host=host).validate()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "kiosk.local", ""])
def test_every_other_host_does(host: str) -> None:
    with pytest.raises(ServeError, match="token"):
        Settings(host=host).validate()
    Settings(host=host, token=TOKEN).validate()
    assert TOKEN not in repr(Settings(host=host, token=TOKEN))


def test_without_the_extra_it_says_what_to_install() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("aiohttp", "aiortc"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in ("aiohttp", "aiortc") else found(name)
from rap_edge.runtime.serve.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
sys.exit(main(["--bundle", "nowhere"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install 'rap-edge[serve]'" in done.stderr
    assert "usage: rap-serve" in done.stdout
