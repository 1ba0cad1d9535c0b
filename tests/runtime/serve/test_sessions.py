"""Sound from elsewhere: a program feeds a session and a browser watches it, over real sockets."""

import asyncio
import io
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.pages import program
from helpers.serving.kiosk_client import Client, listen, run, served
from helpers.serving.webrtc_peer import connected
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import NumericalError
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.serve.visits import visit

RATE = 24000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def voice(seconds: float) -> bytes:
    return np.random.default_rng(0).integers(-9000, 9000, round(seconds * RATE)).astype("<i2").tobytes()


class Session:
    """What `POST /api/sessions` gave, and the requests of its feeder."""

    def __init__(self, client: Client, made: dict[str, str]) -> None:
        self.client, self.id, self.page = client, made["session"], made["page"]
        self.watch_key = {"session": self.id, "token": made["watch_token"]}
        self.feed_key = {"session": self.id, "token": made["feed_token"]}

    async def ask(self, method: str, verb: str = "", **options: object) -> tuple[int, dict]:
        headers = {"X-Session-Token": self.feed_key["token"]}
        send = getattr(self.client, method)
        async with send(f"/api/sessions/{self.id}{verb}", headers=headers, **options) as answer:
            return answer.status, await answer.json() if answer.status != 204 else {}

    async def say(self, sound: bytes) -> tuple[int, dict]:
        return await self.ask("post", f"/sound?rate={RATE}&format=s16le", data=sound)


def watching(client: Client, key: dict[str, str]):
    return opened(client, "watch", key)


async def made(client: Client, **body: object) -> Session:
    answer = await client.post("/api/sessions", json=body)
    assert answer.status == 201
    return Session(client, await answer.json())


@asynccontextmanager
async def opened(client: Client, kind: str, key: dict[str, str], **more: object) -> AsyncIterator["Messages"]:
    """A WebSocket that feeds or watches; everything it is told is kept."""
    async with client.ws_connect("/api/stream") as socket:
        await socket.send_str(json.dumps({"type": kind, **key, **more}))
        messages = Messages(socket)
        listening = asyncio.ensure_future(messages.listen())
        try:
            await messages.told(type="ready")
            yield messages
        finally:
            listening.cancel()


class Messages:
    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket, self.texts, self.video = socket, [], 0

    async def listen(self) -> None:
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                self.texts.append(json.loads(message.data))
            else:
                self.video += len(message.data)

    async def ask(self, verb: str) -> None:
        await self.socket.send_str(json.dumps({"type": verb}))

    async def told(self, **words: object) -> dict:
        async with asyncio.timeout(15):
            while True:
                for text in self.texts:
                    if words.items() <= text.items():
                        return text
                await asyncio.sleep(0.01)


def feeding(client: Client, session: Session):
    return opened(client, "feed", session.feed_key, rate=RATE)


def test_a_program_speaks_and_a_browser_hears_it(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            assert session.page == f"/#session={session.id}&token={session.watch_key['token']}&portrait=p0"
            assert kiosk.admission.taken == 1
            async with feeding(client, session) as feeder, watching(client, session.watch_key) as watcher:
                await feeder.told(type="watched", watched=True)
                await feeder.socket.send_bytes(voice(0.5))
                await feeder.ask("end_utterance")
                for side in (feeder, watcher):
                    ended = await side.told(type="utterance", event="ended")
                    assert (ended["utterance"], ended["played_ms"]) == (0, 500)
                await feeder.ask("finish")
                for side in (feeder, watcher):
                    assert (await side.told(type="end"))["reason"] == "finished"
                assert watcher.video > 1000
            assert (kiosk.admission.taken, kiosk.fed) == (0, {})

    run(scenario)


def test_a_program_without_a_connection_speaks_by_requests(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client, portrait=None)
            status, state = await session.say(voice(0.5))
            assert (status, state["watched"], state["unplayed_seconds"]) == (200, False, pytest.approx(0.5, abs=0.02))
            assert (await session.ask("post", "/end_utterance"))[0] == 200
            async with watching(client, session.watch_key) as watcher:
                await watcher.told(type="utterance", event="ended")
                events = (await session.ask("get"))[1]["events"]
                assert [event.get("event", event["type"]) for event in events] == ["watched", "started", "ended"]
                await session.say(voice(3.0))
                await watcher.told(type="utterance", event="started", utterance=1)
                status, state = await session.ask("post", "/interrupt")
                assert status == 200
                assert 0 <= state["played_ms"] < 3000
                assert state["unplayed_seconds"] == 0
                cut = await watcher.told(type="utterance", event="interrupted")
                assert cut["played_ms"] == state["played_ms"]
                assert (await session.ask("delete"))[0] == 204
                assert (await watcher.told(type="end"))["reason"] == "left"
            assert (await session.ask("get"))[0] == 404
            assert kiosk.admission.taken == 0

    run(scenario)


def test_the_visitor_interrupts_and_what_was_on_the_way_is_not_said(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            async with feeding(client, session) as feeder, watching(client, session.watch_key) as watcher:
                await feeder.socket.send_bytes(voice(2.0))
                await watcher.told(type="utterance", event="started")
                await watcher.ask("interrupt")
                told = await feeder.told(type="interrupt", by="watcher")
                cut = await feeder.told(type="utterance", event="interrupted", utterance=0)
                assert told["played_ms"] == cut["played_ms"]
                # The program has not noticed yet.
                await feeder.socket.send_bytes(voice(1.0))
                await feeder.ask("end_utterance")
                (being,) = kiosk.visits.values()
                assert being.unplayed_seconds == 0
                await feeder.socket.send_bytes(voice(0.3))
                await feeder.ask("end_utterance")
                ended = await feeder.told(type="utterance", event="ended")
                assert (ended["utterance"], ended["played_ms"]) == (1, 300)

    run(scenario)


def test_a_barge_in_while_nothing_is_said_yet_is_told_to_the_program(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            session = await made(client)
            async with feeding(client, session) as feeder, watching(client, session.watch_key) as watcher:
                for _ in range(1000):
                    await watcher.ask("interrupt")
                await feeder.told(type="interrupt", by="watcher", played_ms=0)
                await feeder.socket.send_bytes(voice(0.3))
                await feeder.ask("end_utterance")
                await watcher.told(type="utterance", event="ended", played_ms=300)
                # A storm of interrupts is no storm of messages.
                assert sum(text["type"] == "interrupt" for text in feeder.texts) < 20

    run(scenario)


def test_a_watcher_is_not_heard_and_may_only_interrupt(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            async with watching(client, session.watch_key) as watcher:
                await watcher.socket.send_bytes(voice(0.1))
                assert "not heard" in (await watcher.told(type="notice"))["message"]
                await asyncio.sleep(1.0)
                watcher.texts.clear()
                await watcher.ask("finish")
                assert "interrupt" in (await watcher.told(type="notice"))["message"]
                (being,) = kiosk.visits.values()
                assert not being.finished
                assert not being.speaking

    run(scenario)


def test_who_comes_later_takes_the_place_and_what_is_said_waits_for_a_watcher(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            async with feeding(client, session) as feeder:
                await feeder.socket.send_bytes(voice(0.4))
                await feeder.ask("end_utterance")
                async with watching(client, session.watch_key) as first, watching(client, session.watch_key) as second:
                    assert (await first.told(type="end"))["reason"] == "replaced"
                    await second.told(type="utterance", event="ended", played_ms=400)
                async with feeding(client, session) as later:
                    assert (await feeder.told(type="end"))["reason"] == "replaced"
                    await later.ask("interrupt")
                    await later.told(type="interrupt", by="feeder")
            assert len(kiosk.fed) == 1
            await session.ask("delete")

    run(scenario)


def test_a_watcher_over_webrtc_sees_hears_and_interrupts(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            async with feeding(client, session) as feeder, connected(client, key=session.watch_key) as peer:
                await feeder.socket.send_bytes(voice(4.0))
                await peer.told(type="utterance", event="started")
                loudest = 0
                async with asyncio.timeout(10):
                    while loudest < 1000:
                        loudest = np.abs((await peer.tracks["audio"].recv()).to_ndarray()).max()
                assert (await peer.tracks["video"].recv()).width == TINY.width
                peer.channel.send('{"type": "interrupt"}')
                await feeder.told(type="interrupt", by="watcher")
                assert (await client.delete(f"/api/webrtc/{peer.session}")).status == 204
                await feeder.told(type="watched", watched=False)
            assert len(kiosk.fed) == 1
            await session.ask("delete")

    run(scenario)


def test_more_than_a_minute_that_waits_is_refused_and_nothing_of_it_is_said(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "MOST_SECONDS", 1.0)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            assert (await session.say(voice(0.9)))[0] == 200
            assert (await session.say(voice(0.9)))[0] == 200
            status, answer = await session.say(voice(0.9))
            assert (status, answer["error"]["reason"]) == (429, "behind")
            async with feeding(client, session) as feeder:
                await feeder.socket.send_bytes(voice(0.9))
                assert (await feeder.told(type="notice"))["reason"] == "behind"
                # An interrupt gets through.
                await feeder.ask("interrupt")
                await feeder.told(type="interrupt", by="feeder", played_ms=0)
            (being,) = kiosk.visits.values()
            assert being.unplayed_seconds == 0
            await session.ask("delete")

    run(scenario)


@pytest.mark.parametrize(
    ("verb", "body", "status", "words"),
    [
        ("/sound?rate=24000&format=s16le", b"\0", 400, "whole number"),
        ("/sound?rate=24000&format=mp3", b"\0\0", 400, "format"),
        ("/sound?rate=7&format=s16le", b"\0\0", 400, "rate"),
        ("/sound?rate=999999999999999999999", b"\0\0", 400, "rate"),
        ("/sound", b"\0\0", 400, "rate"),
        ("/sound?rate=8000&format=f32le", b"\0\0\xc0\x7f", 400, "NaN"),
        ("/sound?rate=8000", bytes(2 * 8000 * 61), 413, "60 s"),
        ("/sound?rate=96000&format=f32le", io.BytesIO(bytes((8 << 20) + 4)), 413, "8 MiB"),
        ("/sing", b"", 404, "nothing here"),
    ],
)
def test_what_a_program_gets_wrong_gets_a_sentence_and_harms_nothing(
    bundle: Path, verb: str, body: bytes | io.BytesIO, status: int, words: str
) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            got, answer = await session.ask("post", verb, data=body)
            assert got == status
            assert words in answer["error"]["message"]
            (being,) = kiosk.visits.values()
            assert being.unplayed_seconds == 0
            assert (await session.say(voice(0.1)))[0] == 200

    run(scenario)


def test_tokens_open_their_own_side_of_their_own_session_only(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _):
            one, other = await made(client), await made(client)
            wrong = [
                ("feed", one.watch_key | {"rate": RATE}),
                ("watch", one.feed_key),
                ("watch", one.watch_key | {"session": other.id}),
                ("watch", one.watch_key | {"session": "none"}),
                ("watch", one.watch_key | {"token": ""}),
            ]
            for kind, key in wrong:
                async with client.ws_connect("/api/stream") as socket:
                    await socket.send_str(json.dumps({"type": kind, **key}))
                    _, texts = await listen(socket)
                    assert (socket.close_code, texts[-1]["reason"]) == (1008, "no-session")
            one.feed_key["token"] = one.watch_key["token"]
            for method, verb in [("get", ""), ("delete", ""), ("post", "/interrupt"), ("post", "/sound?rate=8000")]:
                status, answer = await one.ask(method, verb)
                assert (status, answer["error"]["reason"]) == (404, "no-session")
            offer = {"sdp": "v=0", **one.watch_key, "token": "wrong"}
            assert (await client.post("/api/webrtc", json=offer)).status == 404

    run(scenario)


def test_sessions_are_as_many_as_places(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            sessions = [await made(client) for _ in range(2)]
            answer = await client.post("/api/sessions", json={})
            assert (answer.status, (await answer.json())["error"]["reason"]) == (503, "full")
            await sessions[0].ask("delete")
            await made(client)
            assert kiosk.admission.taken == 2

    run(scenario)


def test_a_session_without_one_of_its_sides_ends_after_the_idle_time(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle, idle_seconds=1.5) as (client, kiosk):
            session = await made(client)
            async with feeding(client, session) as feeder:
                async with watching(client, session.watch_key):
                    await asyncio.sleep(3.5)
                    assert len(kiosk.fed) == 1
                assert (await feeder.told(type="end"))["reason"] == "idle"
            assert (kiosk.admission.taken, kiosk.fed) == (0, {})

    run(scenario)


def test_an_engine_that_fails_ends_the_session_for_both_sides(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ChunkLoop, *_: object) -> None:
        raise NumericalError("Stage 'dit' produced NaN or Inf; export the bundle again.")

    monkeypatch.setattr(ChunkLoop, "render", fail)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            async with feeding(client, session) as feeder, watching(client, session.watch_key) as watcher:
                with suppress(ConnectionError):
                    await feeder.socket.send_bytes(voice(1.0))
                for side in (feeder, watcher):
                    assert "NaN" in (await side.told(type="error", reason="failed"))["message"]
            assert kiosk.fed == {}

    run(scenario)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_the_program_of_the_docs_speaks_as_it_stands(bundle: Path) -> None:
    text = program("serve.md")

    async def scenario() -> None:
        async with served(bundle) as (client, _):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", text.replace("8080", str(client.port)), stdout=asyncio.subprocess.PIPE
            )
            words = (await process.stdout.readline()).decode().split("#")
            key = dict(part.split("=", 1) for part in words[1].strip().split("&"))
            async with watching(client, key) as watcher:
                output, _ = await process.communicate()
                assert (await watcher.told(type="end"))["reason"] == "finished"
            assert process.returncode == 0
            assert [line.split()[:2] for line in output.decode().splitlines()] == [
                ["started", "0"],
                ["ended", "0"],
                ["started", "1"],
                ["ended", "1"],
            ]

    run(scenario)


MESSAGES = st.one_of(
    st.sampled_from(["interrupt", "end_utterance", "finish", "dance", ""]).map(lambda kind: json.dumps({"type": kind})),
    st.text(max_size=20),
    st.sampled_from([0, 2, 200, 4000, 20000]).map(bytes),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["feeder", "watcher", "leave", "request"]), MESSAGES), max_size=10))
def test_whatever_both_sides_send_a_session_ends_by_its_end_alone(bundle: Path, steps: list) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, kiosk):
            session = await made(client)
            async with feeding(client, session) as feeder:
                for who, message in steps:
                    try:
                        if who == "request":
                            await session.say(message if isinstance(message, bytes) else message.encode())
                        elif who == "leave":
                            async with watching(client, session.watch_key):
                                pass
                        else:
                            side = feeder if who == "feeder" else None
                            async with watching(client, session.watch_key) as watcher:
                                socket = (side or watcher).socket
                                send = socket.send_bytes if isinstance(message, bytes) else socket.send_str
                                await send(message)
                    except (ConnectionError, TimeoutError):
                        break
                    if not kiosk.fed:
                        break
                finished = any(who == "feeder" and message == '{"type": "finish"}' for who, message in steps)
                assert finished or len(kiosk.fed) == 1
                await session.ask("delete")
                async with asyncio.timeout(10):
                    while kiosk.admission.taken or kiosk.fed:
                        await asyncio.sleep(0.01)

    run(scenario)
