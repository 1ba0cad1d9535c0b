"""Which STUN and TURN servers are taken, who is told of them, and media through a real one."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest
from aiortc import RTCIceServer
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.kiosk_client import run, served
from helpers.serving.self_signed import write_certificate
from helpers.serving.turn_server import BY_SECRET, LONG_TERM, PASSWORD, SECRET, TURNSERVER, USER, turn_server
from helpers.serving.webrtc_peer import connected
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve import cli
from rap_edge.runtime.serve.transports.ice import IceServer, parse_ice_servers, readable_by_all
from rap_edge.runtime.serve.transports.relay import note_missing_relay

TURN = "turn:turn.example:3478"
needs_coturn = pytest.mark.skipif(TURNSERVER is None, reason="coturn is not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


async def talk_by_relay(bundle: Path, server: IceServer) -> None:
    """A visit whose packets have no other way than `server`."""
    async with served(bundle, ice_servers=(server,)) as (client, _):
        told = (await (await client.get("/api/ice-servers")).json())["ice_servers"]
        mine = [RTCIceServer(**entry) for entry in told]
        async with connected(client, mine, "typ relay") as peer, asyncio.timeout(15):
            await peer.tracks["video"].recv()
            await peer.tracks["audio"].recv()


@needs_coturn
@pytest.mark.parametrize(
    ("mechanism", "server"),
    [
        (BY_SECRET, {"secret": SECRET, "username": "kiosk"}),
        (LONG_TERM, {"username": USER, "credential": PASSWORD}),
    ],
)
def test_media_comes_through_a_turn_server_where_there_is_no_other_way(
    bundle: Path, tmp_path: Path, mechanism: tuple[str, ...], server: dict[str, str]
) -> None:
    with turn_server(tmp_path, mechanism) as url:
        run(lambda: talk_by_relay(bundle, IceServer((url,), **server)))
    assert "CHANNEL_BIND processed, success" in (tmp_path / "turn.log").read_text()


@needs_coturn
def test_media_comes_through_a_turn_server_over_tls(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path)
    # As a certificate that everybody trusts.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with turn_server(tmp_path, BY_SECRET, certificate) as url:
        run(lambda: talk_by_relay(bundle, IceServer((url,), secret=SECRET)))
    assert "CHANNEL_BIND processed, success" in (tmp_path / "turn.log").read_text()


@needs_coturn
def test_a_visitor_is_served_though_the_turn_server_refuses_the_kiosk(bundle: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        servers = (IceServer((url,), secret="another secret"),)
        async with served(bundle, ice_servers=servers) as (client, _), connected(client) as peer:
            async with asyncio.timeout(15):
                await peer.tracks["video"].recv()

    with turn_server(tmp_path) as url:
        run(scenario)
    assert "Cannot find credentials" in (tmp_path / "turn.log").read_text()


@needs_coturn
@pytest.mark.parametrize(("secret", "warnings"), [(SECRET, 0), ("another secret", 1)])
def test_the_log_says_once_that_the_turn_server_gives_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, secret: str, warnings: int
) -> None:
    with turn_server(tmp_path) as url:
        run(lambda: note_missing_relay((IceServer((url,), secret=secret),)))
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [url in message for message in found] == [True] * warnings
    # The relay is given back.
    assert (tmp_path / "turn.log").read_text().count("lifetime=0") == 1 - warnings


def test_a_secret_stays_here_and_makes_a_password_for_ten_minutes() -> None:
    server = IceServer((TURN,), username="kiosk", secret=SECRET)
    told = server.told(now=1000.7)
    assert told["username"] == "1600:kiosk"
    assert base64.b64decode(told["credential"]) == hmac.digest(SECRET.encode(), b"1600:kiosk", hashlib.sha1)
    assert SECRET not in json.dumps(told) + repr(server)
    assert IceServer((TURN,), secret=SECRET).told(now=0.0)["username"] == "600"


def test_strangers_are_told_of_no_server(bundle: Path) -> None:
    servers = (IceServer((TURN,), username=USER, credential=PASSWORD), IceServer((TURN,), secret=SECRET))
    token = "a-token-of-enough-letters"

    async def scenario() -> None:
        async with served(bundle, host="0.0.0.0", token=token, ice_servers=servers) as (client, _):
            assert (await client.get("/api/ice-servers")).status == 401
            inside = {"Authorization": f"Bearer {token}"}
            for path in ("/", "/app.js", "/webrtc.js", "/api/kiosk", "/metrics", "/healthz"):
                text = await (await client.get(path, headers=inside)).text()
                assert PASSWORD not in text
                assert SECRET not in text
            answer = await client.get("/api/ice-servers", headers=inside)
            assert answer.headers["Cache-Control"] == "no-store"
            static, made = (await answer.json())["ice_servers"]
            assert static == {"urls": [TURN], "username": USER, "credential": PASSWORD}
            assert 500 < int(made["username"]) - time.time() <= 600
            assert SECRET not in json.dumps(made)

    run(scenario)


@pytest.mark.parametrize(
    "url",
    [
        "stun:stun.example",
        "stuns:stun.example:5349",
        "turn:10.0.0.4:3478",
        "turn:turn.example?transport=tcp",
        "turns:t-1.example:443?transport=tcp",
    ],
)
def test_what_is_taken_is_taken_by_aiortc_too(url: str) -> None:
    from aiortc.rtcicetransport import connection_kwargs

    connection_kwargs([RTCIceServer(**IceServer((url,), username="u", credential="c").told())])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON list"),
        ("[" * 100_000, "no JSON list"),
        ('{"urls": "stun:a"}', "no JSON list"),
        ('["stun:a"]', "no JSON list"),
        ("[{}]", "no URL"),
        ('[{"urls": 5}]', "must be a text"),
        ('[{"urls": "http://a"}]', "no STUN or TURN URL"),
        ('[{"urls": "stun:a:0"}]', "no STUN or TURN URL"),
        ('[{"urls": "stun:a:70000"}]', "no STUN or TURN URL"),
        ('[{"urls": "stun:a?transport=udp"}]', "no STUN or TURN URL"),
        ('[{"urls": "stun:a\\n"}]', "control characters"),
        ('[{"urls": "turn:a"}]', "user and a password"),
        ('[{"urls": "turn:a", "username": "b"}]', "user and a password"),
        ('[{"urls": "turn:a", "username": "b", "credential": 5}]', "plain characters"),
        ('[{"urls": "turn:a", "secret": "b", "credential": "c"}]', "one of them"),
        ('[{"urls": "turn:a", "password": "b"}]', "'password'"),
        (json.dumps([{"urls": "stun:a"}] * 9), "more than 8"),
    ],
)
def test_a_wrong_list_is_refused_with_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ServeError, match=words) as caught:
        parse_ice_servers(text, "The file")
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400


VALUES = st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from([TURN, "stun:a", "turn:a:1"])
FIELDS = st.sampled_from(["urls", "username", "credential", "secret"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(FIELDS, VALUES | st.lists(VALUES, max_size=2)), max_size=2))
def test_no_list_ends_in_anything_but_servers_or_a_sentence(entries: list[dict[str, object]]) -> None:
    try:
        servers = parse_ice_servers(json.dumps(entries), "The file")
    except ServeError:
        return
    assert all(server.told()["urls"] for server in servers)


def test_servers_come_from_the_command_line_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "turn.json"
    file.write_text(json.dumps([{"urls": [TURN, f"{TURN}?transport=tcp"], "secret": SECRET}]))
    file.chmod(0o644)
    monkeypatch.setenv("RAP_SERVE_ICE_SERVERS", '[{"urls": "turn:b", "username": "c", "credential": "d"}]')
    opened: list[tuple[IceServer, ...]] = []

    def stop(bundle: str, chosen: cli.Settings) -> None:
        opened.append(chosen.ice_servers)
        raise ServeError("That is enough.")

    monkeypatch.setattr("rap_edge.runtime.serve.server.open_kiosk", stop)
    command = ["--bundle", str(tmp_path), "--ice-server", "stun:a", "--ice-file", str(file)]
    assert cli.main(command) == 2
    assert [server.urls for server in opened[0]] == [("stun:a",), (TURN, f"{TURN}?transport=tcp"), ("turn:b",)]
    assert f"chmod 600 {file}" in capsys.readouterr().err

    file.chmod(0o600)
    assert not readable_by_all(file)
    assert cli.main(command) == 2
    assert "chmod" not in capsys.readouterr().err
    assert SECRET not in repr(opened)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ice-server", TURN], "--ice-file"),
        (["--ice-server", "nonsense"], "no STUN or TURN URL"),
        (["--ice-file", "missing.json"], "cannot be read"),
        (["--ice-file", "."], "cannot be read"),
    ],
)
def test_wrong_servers_are_refused_before_the_model_is_loaded(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--bundle", "nowhere", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "loading" not in error
