import asyncio
import contextlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession, TCPConnector, WSServerHandshakeError
from helpers.bundles.tiny_bundle import write_png, write_tiny_bundle
from helpers.serving.kiosk_client import listen, run, served, start
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, PortraitFigures
from rap_edge.runtime.outputs.png import encode_png
from rap_edge.runtime.serve import app, portraits
from rap_edge.runtime.serve import kiosk as kiosk_module
from rap_edge.runtime.serve.http import access, body
from rap_edge.runtime.serve.http.page_files import read_page

TOKEN = "a-token-of-enough-letters"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)
    return write_png(tmp_path_factory.mktemp("png") / "face.png", pixels).read_bytes()


async def reason(answer) -> str:
    error = (await answer.json())["error"]
    assert error["message"].endswith(".")
    assert "/" not in error["message"].replace("at /.", "")
    return error["reason"]


def test_the_page_and_its_files_come_with_headers_that_lock_the_browser_down(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            for path in read_page():
                answer = await client.get(path)
                assert answer.status == 200
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert "unsafe" not in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "aiohttp" not in answer.headers["Server"]
                again = await client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
                assert again.status == 304

    run(scenario)


def test_the_page_asks_for_nothing_that_the_server_does_not_have() -> None:
    page = read_page()
    for file in page.values():
        text = file.body.decode()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert ' style="' not in text
    assert set(page) >= {"/", "/app.js", "/style.css", "/webrtc.js", "/websocket.js", "/mic-worklet.js"}


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/../pyproject.toml", "/..%2f..%2fpyproject.toml", "/page/app.js", "/app.py", "/%00", "/api/"],
)
def test_no_other_path_of_the_server_is_reachable(bundle: Path, path: str) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            answer = await client.get(URL(path, encoded=True))
            assert answer.status == 404
            assert await reason(answer) == "not-found"

    run(scenario)


def test_a_wrong_method_is_told_the_right_one(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            answer = await client.put("/api/webrtc")
            assert (answer.status, await reason(answer)) == (405, "method")
            assert answer.headers["Allow"] == "POST"

    run(scenario)


def test_health_tells_how_full_it_is(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            state = await (await client.get("/healthz")).json()
            assert state == {"status": "ok", "sessions": 0, "sessions_max": 2}
            kiosk.stopping = True
            assert (await client.get("/healthz")).status == 503

    run(scenario)


def test_metrics_count_what_happened(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            async with client.ws_connect("/api/stream") as socket:
                await start(socket)
                await socket.send_bytes(bytes(2 * 16000))
                await socket.send_str('{"type": "finish"}')
                await listen(socket)
            answer = await client.get("/metrics")
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = await answer.text()
            assert 'rap_serve_sessions_total{transport="websocket"} 1\n' in text
            assert 'rap_serve_sessions_ended_total{reason="finished"} 1\n' in text
            assert "rap_serve_sessions 0\n" in text
            assert "rap_serve_frames_total 32\n" in text
            chunks = int(text.partition("\nrap_serve_chunks_total ")[2].split()[0])
            assert f'rap_serve_render_seconds_bucket{{le="+Inf"}} {chunks}\n' in text
            assert chunks > 0
            for line in text.splitlines():
                assert line.startswith(("# HELP rap_serve_", "# TYPE rap_serve_", "rap_serve_"))

    run(scenario)


def test_a_prometheus_parser_reads_the_metrics(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            families = list(text_string_to_metric_families(await (await client.get("/metrics")).text()))
            assert {"rap_serve_sessions", "rap_serve_render_seconds"} <= {family.name for family in families}

    run(scenario)


def test_without_the_token_only_health_answers(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle, host="0.0.0.0", token=TOKEN) as (client, _):
            for path in ("/", "/app.js", "/metrics", "/api/kiosk", "/api/portraits/p0"):
                answer = await client.get(path)
                assert (answer.status, await reason(answer)) == (401, "token")
            assert (await client.post("/api/portraits", data=b"x")).status == 401
            with pytest.raises(WSServerHandshakeError, match="401"):
                await client.ws_connect("/api/stream")
            assert (await client.get("/healthz")).status == 200

    run(scenario)


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 30])
def test_a_wrong_token_is_refused_everywhere(bundle: Path, given: str) -> None:
    async def scenario() -> None:
        async with served(bundle, host="0.0.0.0", token=TOKEN) as (client, _):
            assert (await client.get("/", params={"token": given}, allow_redirects=False)).status == 401
            headers = {"Authorization": f"Bearer {given}".encode().decode("latin-1")}
            assert (await client.get("/metrics", headers=headers)).status == 401
            cookie = {"Cookie": f"{access.COOKIE}={given}\xff".encode().decode("latin-1")}
            assert (await client.get("/metrics", headers=cookie)).status == 401

    run(scenario)


def test_the_right_token_opens_the_page_by_cookie_and_the_interfaces_by_header(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle, host="0.0.0.0", token=TOKEN) as (client, _):
            assert (await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).status == 200
            welcome = await client.get("/", params={"token": TOKEN}, allow_redirects=False)
            assert (welcome.status, welcome.headers["Location"]) == (303, "/")
            cookie = welcome.cookies[access.COOKIE]
            assert cookie["httponly"]
            assert cookie["samesite"] == "Strict"
            assert TOKEN not in cookie.value
            headers = {"Cookie": f"{access.COOKIE}={cookie.value}"}
            assert (await client.get("/api/kiosk", headers=headers)).status == 200

    run(scenario)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "http://[", ""])
def test_another_sites_page_can_neither_post_nor_open_a_stream(bundle: Path, origin: str) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            headers = {"Origin": origin}
            answer = await client.post("/api/portraits", data=b"x", headers=headers)
            assert (answer.status, await reason(answer)) == (403, "origin")
            assert (await client.delete("/api/webrtc/x", headers=headers)).status == 403
            with pytest.raises(WSServerHandshakeError, match="403"):
                await client.ws_connect("/api/stream", headers=headers)

    run(scenario)


def test_its_own_page_and_the_origins_that_were_allowed_can(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle, origins=("https://kiosk.example/",)) as (client, _):
            own = f"http://127.0.0.1:{client.port}"
            for origin in (own, "https://kiosk.example"):
                assert (await client.delete("/api/webrtc/x", headers={"Origin": origin})).status == 204
                async with client.ws_connect("/api/stream", headers={"Origin": origin}) as socket:
                    assert (await start(socket))["type"] == "ready"

    run(scenario)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "[",
        "[::1]evil",
        "[::1]:80:80",
        "[::1",
        "::1",
        "evil@127.0.0.1",
        "127.0.0.1/evil",
        "127.0.0.1:99999",
        "localhost evil",
        "\xff",
    ],
)
def test_a_foreign_name_that_points_at_this_machine_is_refused(bundle: Path, host: str) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            answer = await client.get("/", headers={"Host": host})
            assert (answer.status, await reason(answer)) == (421, "host")

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "LocalHost", "[::1]", "[::1]:8080", "kiosk.example"])
def test_the_names_of_this_machine_and_of_the_origins_are_served(bundle: Path, host: str) -> None:
    async def scenario() -> None:
        async with served(bundle, origins=("https://Kiosk.example:8443/",)) as (client, _):
            assert (await client.get("/", headers={"Host": host})).status == 200

    run(scenario)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_as_it_says_gets_a_sentence(bundle: Path, png: bytes, coding: str) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
            for path in ("/api/webrtc", "/api/portraits"):
                answer = await client.post(path, data=b"not packed at all", headers=headers)
                assert (answer.status, await reason(answer)) == (400, "bad-request")

    run(scenario)


def test_an_uploaded_picture_becomes_a_portrait_that_speaks_and_nobody_else_sees(bundle: Path, png: bytes) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            answer = await client.post("/api/portraits", data=png)
            assert answer.status == 201
            portrait = await answer.json()
            picture = await client.get(portrait["url"])
            assert picture.headers["Content-Type"] == "image/png"
            listed = (await (await client.get("/api/kiosk")).json())["portraits"]
            assert [entry["name"] for entry in listed] == ["Built in"]
            async with client.ws_connect("/api/stream") as socket:
                assert (await start(socket, portrait=portrait["id"]))["type"] == "ready"

    run(scenario)


def test_bad_uploads_get_a_sentence(bundle: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    huge_header = bytearray(png)
    huge_header[16:24] = (40_000).to_bytes(4, "big") * 2

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            for data in (b"", b"no picture", png[: len(png) // 2], b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
                answer = await client.post("/api/portraits", data=data)
                assert (answer.status, await reason(answer)) == (400, "bad-portrait")
            answer = await client.post("/api/portraits", data=bytes(huge_header))
            assert "million" in (await answer.json())["error"]["message"]
            monkeypatch.setattr(app, "MAX_UPLOAD_BYTES", 2000)
            answer = await client.post("/api/portraits", data=bytes(2001))
            assert (answer.status, await reason(answer)) == (413, "too-large")

            async def chunked():
                for _ in range(30):
                    yield bytes(100)

            answer = await client.post("/api/portraits", data=chunked())
            assert (answer.status, await reason(answer)) == (413, "too-large")
            assert not kiosk.portraits._uploads

    run(scenario)


def test_an_upload_that_never_ends_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_SECONDS", 0.1)

    async def scenario() -> None:
        async with served(bundle) as (client, _):

            async def slow():
                yield b"x"
                await asyncio.sleep(1)
                yield b"x"

            answer = await client.post("/api/portraits", data=slow())
            assert (answer.status, await reason(answer)) == (408, "too-slow")

    run(scenario)


def test_a_visitor_is_told_at_once_that_the_face_will_not_look_like_the_picture(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "gated"
    shutil.copytree(bundle, root)
    gates = PortraitFigures(psnr=25.0, ssim=0.7, colour=4.0)
    (root / MANIFEST_NAME).write_text(replace(Bundle.open(root).manifest, portrait_gates=gates).to_json())
    board = encode_png((np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)).astype(np.uint8))
    plain = encode_png(np.full((64, 64, 3), 90, np.uint8))

    async def scenario() -> None:
        async with served(root) as (client, _):
            for picture, said in ((plain, ""), (board, "will not look like this picture")):
                answer = await client.post("/api/portraits", data=picture)
                assert answer.status == 201
                warning = (await answer.json())["warning"]
                assert said in warning
                assert bool(warning) == bool(said)

    run(scenario)


def visitor_from(number: int) -> ClientSession:
    """Somebody with a loopback address of their own."""
    return ClientSession(connector=TCPConnector(local_addr=(f"127.0.0.{number}", 0)))


def test_one_upload_per_visitor_and_few_in_all_are_on_their_way_at_once(bundle: Path, png: bytes) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _), contextlib.AsyncExitStack() as stack:
            gate = asyncio.Event()

            async def held():
                yield png[:10]
                await gate.wait()
                yield png[10:]

            *slow, other = [await stack.enter_async_context(visitor_from(number)) for number in range(1, 10)]
            url = f"http://127.0.0.1:{client.port}/api/portraits"
            waiting = [asyncio.ensure_future(session.post(url, data=held())) for session in slow]
            await asyncio.sleep(0.2)
            for session, match in ((slow[0], "Your last picture"), (other, "Other pictures")):
                answer = await session.post(url, data=png)
                assert answer.status == 503
                assert match in (await answer.json())["error"]["message"]
            gate.set()
            assert [(await answer).status for answer in waiting] == [201] * 8
            assert (await slow[0].post(url, data=png)).status == 201

    run(scenario)


def test_slow_uploads_keep_nobody_from_having_a_picture_decoded_and_two_are_at_a_time(
    bundle: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, busy, together = portraits.decode_picture, [], []

    def watched(data: bytes, *how: object):
        busy.append(None)
        together.append(len(busy))
        time.sleep(0.1)
        try:
            return decode(data, *how)
        finally:
            busy.pop()

    monkeypatch.setattr(portraits, "decode_picture", watched)

    async def scenario() -> None:
        async with served(bundle) as (client, _), contextlib.AsyncExitStack() as stack:
            gate = asyncio.Event()

            async def never():
                yield png[:10]
                await gate.wait()

            visitors = [await stack.enter_async_context(visitor_from(number)) for number in range(1, 7)]
            url = f"http://127.0.0.1:{client.port}/api/portraits"
            slow = [asyncio.ensure_future(session.post(url, data=never())) for session in visitors[:2]]
            await asyncio.sleep(0.2)
            answers = await asyncio.gather(*(session.post(url, data=png) for session in visitors[2:]))
            assert [answer.status for answer in answers] == [201] * 4
            assert max(together) == 2
            gate.set()
            await asyncio.gather(*slow)

    run(scenario)


def test_old_uploads_make_room_for_new_ones(bundle: Path, png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "MOST_UPLOADS", 2)

    async def scenario() -> None:
        async with served(bundle) as (client, _):
            urls = [(await (await client.post("/api/portraits", data=png)).json())["url"] for _ in range(3)]
            assert [(await client.get(url)).status for url in urls] == [404, 200, 200]

    run(scenario)


def test_an_upload_to_a_kiosk_that_was_empty_for_long_is_kept_for_the_idle_time(
    bundle: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kiosk_module, "_TIDY_SECONDS", 0.05)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            kiosk._last_use -= 1000
            url = (await (await client.post("/api/portraits", data=png)).json())["url"]
            await asyncio.sleep(0.3)
            assert (await client.get(url)).status == 200
            kiosk._last_use -= 1000
            async with asyncio.timeout(10):
                while (await client.get(url)).status == 200:
                    await asyncio.sleep(0.02)

    run(scenario)


def test_one_visitor_too_many_is_told_so(bundle: Path) -> None:
    async def scenario() -> None:
        async with (
            served(bundle, max_sessions=1) as (client, _),
            client.ws_connect("/api/stream") as first,
        ):
            assert (await start(first))["type"] == "ready"
            async with client.ws_connect("/api/stream") as second:
                message = await start(second)
                assert (message["type"], message["reason"]) == ("error", "full")
                assert "one visitor at a time" in message["message"]
                await second.receive()
                assert second.close_code == 1013
            answer = await client.post("/api/webrtc", data=json.dumps({"sdp": "m=audio m=video"}))
            assert (answer.status, await reason(answer)) == (503, "full")
            assert answer.headers["Retry-After"] == "5"
            await first.close()
            async with client.ws_connect("/api/stream") as third:
                assert (await start(third))["type"] == "ready"

    run(scenario)


@pytest.mark.parametrize(
    "offer",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 5000,
        b'{"sdp": 3}',
        b'{"sdp": "v=0"}',
        b'{"sdp": "m=audio"}',
        b'{"sdp": "m=audio m=video"}',
        b'{"sdp": "v=0\\r\\nm=audio 9 UDP/TLS/RTP/SAVPF 0\\r\\nm=video 9 UDP/TLS/RTP/SAVPF 96\\r\\n"}',
        b'{"sdp": "v=0\\r\\nm=audio x y z\\r\\nm=video\\r\\na=rtpmap:\\r\\n"}',
        json.dumps({"sdp": "m=audio m=video" + "a=candidate:" * 100}).encode(),
        json.dumps({"sdp": "m=audio m=video", "portrait": "nobody"}).encode(),
        json.dumps({"sdp": "m=audio m=video", "portrait": "x" * 1000}).encode(),
    ],
)
def test_an_offer_that_cannot_be_answered_gets_a_sentence_and_leaves_nothing(bundle: Path, offer: bytes) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            answer = await client.post("/api/webrtc", data=offer)
            assert (answer.status, await reason(answer)) == (400, "bad-request")
            assert kiosk.admission.taken == 0

    run(scenario)


def test_an_offer_has_a_size_limit(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            answer = await client.post("/api/webrtc", data=bytes(70_000))
            assert (answer.status, await reason(answer)) == (413, "too-large")

    run(scenario)
