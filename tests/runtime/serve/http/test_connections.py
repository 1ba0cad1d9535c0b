"""Connections as no browser makes them: raw sockets against a kiosk in this process."""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.kiosk_client import Client, run, served, start
from helpers.serving.self_signed import write_certificate
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.errors import ServeError
from rap_edge.runtime.serve import server
from rap_edge.runtime.serve.http import connection as http_connection
from rap_edge.runtime.serve.http import crowd, listener
from rap_edge.runtime.serve.http.connection import HttpConnection
from rap_edge.runtime.serve.http.crowd import Crowd, most_connections
from rap_edge.runtime.serve.http.frames import MaskedFrames
from rap_edge.runtime.serve.log import Sparing, note_loose_end
from rap_edge.runtime.serve.transports import websocket

TOKEN = "a-token-of-enough-letters"
ILLEGAL = b"\xf0\x80"
HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@contextlib.asynccontextmanager
async def opened(client: Client) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(client: Client, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    async with opened(client) as (reader, writer):
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 10)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n \x00\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /?token=" + TOKEN.encode() + b" HTTP/9.9\r\n\r\n",
        b"GET /?token=" + TOKEN.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nbad header\r\n\r\n",
        b"GET /?token=" + TOKEN.encode() + b"\xff\x00 HTTP/1.1\r\n\r\n",
        b"GET /" + 20_000 * b"a" + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + 20_000 * b"a" + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + 300 * b"X: a\r\n" + b"\r\n",
        b"POST /api/webrtc HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/webrtc HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: the worst\r\nConnection: close\r\n\r\n",
        b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xff\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_in_our_words_and_not_quoted_in_the_log(
    bundle: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            head, _, body = (await exchange(client, sent)).partition(b"\r\n\r\n")
            assert head.split()[1] in (b"400", b"417")
            assert b"Content-Security-Policy: default-src 'none'" in head
            assert b"Server: rap-serve" in head
            assert json.loads(body)["error"]["reason"] == "bad-request"
            assert b"aiohttp" not in head + body

    run(scenario)
    assert TOKEN not in caplog.text
    assert "Traceback" not in caplog.text
    assert len(caplog.records) <= 1


def test_a_handler_that_fails_is_told_without_its_traceback_which_is_in_the_log(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            monkeypatch.setattr(kiosk.metrics, "text", None)
            answer = await client.get("/metrics")
            assert answer.status == 500
            assert (await answer.json())["error"]["reason"] == "failed"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    run(scenario)
    assert "TypeError" in caplog.text


def test_a_stream_that_fails_frees_its_place_and_is_in_the_log(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(websocket, "_speak", broken)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), client.ws_connect("/api/stream") as socket:
            await socket.send_str('{"type": "start", "rate": 16000}')
            await socket.receive()
            assert kiosk.admission.taken == 0

    run(scenario)
    assert "a mistake of ours" in caplog.text


def test_a_client_that_goes_in_the_middle_of_its_body_leaves_no_trace(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            async with opened(client) as (_, writer):
                writer.write(b"POST /api/portraits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n\r\nbegun")
                await writer.drain()
            await asyncio.sleep(0.1)
            assert (await client.get("/healthz")).status == 200

    run(scenario)
    assert caplog.text == ""


@pytest.mark.parametrize("sent", [b"", HALF, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + HALF])
def test_a_request_that_is_never_whole_is_cut_off(bundle: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_HEAD_SECONDS", 0.2)
    monkeypatch.setattr(http_connection, "_IDLE_SECONDS", 0.2)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            with contextlib.suppress(ConnectionResetError):
                await exchange(client, sent)
            assert 'rap_serve_refused_total{reason="too-slow"} 1\n' in kiosk.metrics.text()

    run(scenario)


@pytest.mark.parametrize("closing", [False, True])
def test_a_client_that_does_not_read_its_answer_is_cut_off(
    bundle: Path, closing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "_ANSWER_SECONDS", 0.5)
    made: list[HttpConnection] = []

    class Noted(HttpConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    monkeypatch.setattr(listener, "HttpConnection", Noted)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), opened(client) as (_, writer):
            writer.transport.pause_reading()
            for _ in range(20_000):
                writer.write(b"GET /app.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            while not made or not made[0].writing_paused:
                await asyncio.sleep(0.01)
            if closing:
                # As aiohttp does, which then waits for what is written to be read.
                made[0].force_close()
            async with asyncio.timeout(20):
                while made[0].is_open:
                    await asyncio.sleep(0.05)
            assert 'reason="too-slow"' in kiosk.metrics.text()

    run(scenario)


def test_half_requests_lock_nobody_out_and_a_visitor_stays(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda places: 8)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), contextlib.AsyncExitStack() as crowded:
            async with client.ws_connect("/api/stream") as visitor:
                assert (await start(visitor))["type"] == "ready"
                for _ in range(40):
                    _, writer = await crowded.enter_async_context(opened(client))
                    writer.write(HALF)
                await asyncio.sleep(0.1)
                async with ClientSession() as other:
                    answer = await other.get(f"http://127.0.0.1:{client.port}/healthz")
                    assert (await answer.json())["sessions"] == 1
                await visitor.send_bytes(bytes(3200))
                while (message := await visitor.receive()).type is WSMsgType.BINARY:
                    pass
                assert message.json()["type"] == "stats"
            # The visitor's connection, once without a place, may go as well.
            assert f'reason="crowded"}} {37:d}\n' in kiosk.metrics.text()

    run(scenario)


def test_a_listener_without_handles_goes_on_when_there_are_some_again(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        loop, failures = asyncio.get_running_loop(), iter(range(3))
        accept = loop.sock_accept

        async def failing(listening):
            if next(failures, None) is not None:
                raise OSError(24, "Too many open files")
            return await accept(listening)

        monkeypatch.setattr(loop, "sock_accept", failing, raising=False)
        async with served(bundle) as (client, _):
            assert (await client.get("/healthz")).status == 200

    run(scenario)
    assert [record.getMessage() for record in caplog.records] == 3 * [
        "A connection could not be taken (Too many open files)."
    ]


def test_handshakes_that_are_never_finished_are_counted_and_dropped_too(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "most_connections", lambda places: 8)
    cert, key = write_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=cert)
    trusting.check_hostname = False

    async def scenario() -> None:
        async with served(bundle, certificate=cert, key=key) as (client, kiosk), contextlib.AsyncExitStack() as crowded:
            before = len(os.listdir("/proc/self/fd"))
            for begun in itertools.islice(itertools.cycle([b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"]), 30):
                _, writer = await crowded.enter_async_context(opened(client))
                writer.write(begun)
            await asyncio.sleep(0.2)
            # 30 of ours, and as many of the server's as one address may have.
            assert len(os.listdir("/proc/self/fd")) - before <= 30 + 4
            async with ClientSession() as session:
                answer = await session.get(f"https://127.0.0.1:{client.port}/healthz", ssl=trusting)
                assert answer.status == 200
            assert 'reason="crowded"' in kiosk.metrics.text()

    run(scenario)
    assert caplog.text == ""


class Waiting:
    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_who_has_waited_longest_goes_and_an_address_drops_its_own() -> None:
    held = Crowd(4)
    first, second, third, fourth, fifth, sixth = waiting = [Waiting() for _ in range(6)]
    held.add(first, "10.0.0.1")
    held.add(second, "2001:db8::1")
    held.add(third, "2001:db8::ffff")
    held.add(fourth, "2001:db8:0:0:1::")
    assert [one.dropped for one in waiting] == [False, True, False, False, False, False]
    held.add(fifth, "10.0.0.2")
    held.renew(first)
    held.add(sixth, "10.0.0.3")
    assert third.dropped
    assert not first.dropped
    for one in waiting:
        held.remove(one)
    assert len(held) == 0
    held.drop_oldest()


@pytest.mark.parametrize(
    ("handles", "places", "connections"),
    [(None, 2, 512), ((4096, 20), 2, 512), ((256, 20), 2, 188), ((64, 16), 2, 24), ((1024, 20), 64, 502)],
)
def test_connections_leave_handles_for_those_who_have_a_place(
    handles: tuple[int, int] | None, places: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "_handles", lambda: handles)
    assert most_connections(places) == connections


def test_a_process_with_hardly_any_handles_is_told_how_many_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_handles", lambda: (32, 20))
    with pytest.raises(ServeError, match=r"allow it at least 60 \(ulimit -n\)"):
        most_connections(2)


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return data == ILLEGAL, b""

    def feed_eof(self) -> None:
        self.data += b"eof"


def frame(payload: bytes, masked: bool = True) -> bytes:
    size = len(payload)
    mark = 0x80 * masked
    if size < 126:
        header = struct.pack(">BB", 0x82, mark | size)
    elif size < 1 << 16:
        header = struct.pack(">BBH", 0x82, mark | 126, size)
    else:
        header = struct.pack(">BBQ", 0x82, mark | 127, size)
    return header + b"mask" * masked + payload


frames = st.lists(st.sampled_from([0, 1, 125, 126, 300, 1 << 16]).map(bytes), max_size=4)


@given(whole=frames, rest=st.none() | st.just(b"unmasked"), cuts=st.lists(st.integers(0, 70_000), max_size=8))
def test_masked_frames_pass_as_they_are_and_the_first_other_one_is_made_illegal(
    whole: list[bytes], rest: bytes | None, cuts: list[int]
) -> None:
    good = b"".join(map(frame, whole))
    data = good + (frame(rest, masked=False) if rest is not None else b"")
    reader = Collected()
    checked = MaskedFrames(reader)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        done, _ = checked.feed_data(data[begin:end])
        if done:
            break
    assert reader.data == good + (ILLEGAL if rest is not None else b"")


def test_a_client_that_does_not_mask_is_closed_as_the_protocol_asks(bundle: Path) -> None:
    handshake = (
        b"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            answer = await exchange(client, handshake + frame(b'{"type": "start", "rate": 16000}', masked=False))
            assert answer.partition(b"\r\n\r\n")[2] == b"\x88\x02" + (1002).to_bytes(2)
            assert "websocket" not in kiosk.metrics.text().replace("rap_serve_sessions_total", "")

    run(scenario)


def test_a_line_that_somebody_causes_again_and_again_is_written_a_few_times_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sparing, written = Sparing(), []
    for second in range(30):
        now = float(second)
        record = logging.LogRecord("x", logging.WARNING, "a.py", 3, "From %s.", (second,), None)
        if sparing.filter(record):
            written.append(record.getMessage())
        other = logging.LogRecord("x", logging.WARNING, "b.py", 3, "Other.", (), None)
        assert sparing.filter(other) or second % 10 > 4
    assert len(written) == 15
    assert written[5] == "From 10. (5 more like this before)"


def test_what_a_library_drops_in_the_background_is_a_line_and_what_we_drop_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.new_event_loop()
    for source in ("raise KeyError(3)", "raise ValueError(4)"):
        library = {"__name__": "aioice.ice" if "Key" in source else "rap_edge.runtime"}
        try:
            exec(compile(source, "x", "exec"), library)
        except (KeyError, ValueError) as error:
            note_loose_end(loop, {"message": "Task exception was never retrieved", "exception": error})
    loop.close()
    assert [record.exc_info is None for record in caplog.records] == [True, False]
    assert "KeyError" in caplog.records[0].getMessage()
