import asyncio
import io
import json
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse, web
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.places import ROOT
from helpers.serving.kiosk_client import listen, run, served, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rap_edge.runtime.errors import AudioError, NumericalError, ServeError
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.outputs.mp4_muxer import STREAM
from rap_edge.runtime.serve.transports import websocket
from rap_edge.runtime.serve.transports.protocol import FORMATS, MAX_BINARY, decode_pcm, parse_start
from rap_edge.runtime.serve.visits import visit

FINISH = '{"type": "finish"}'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def noise(seconds: float, rate: int) -> np.ndarray:
    pcm = 0.3 * np.random.default_rng(0).standard_normal(round(seconds * rate))
    return pcm.clip(-1, 1).astype(np.float32)


async def send(socket: ClientWebSocketResponse, pcm: np.ndarray, form: str, block: int = 1000) -> None:
    raw = pcm if form == "f32le" else np.round(pcm * 32767)
    for start_ in range(0, len(raw), block):
        await socket.send_bytes(raw[start_ : start_ + block].astype(FORMATS[form]).tobytes())


def decode(video: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    with av.open(io.BytesIO(video)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    with av.open(io.BytesIO(video)) as file:
        rate = file.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)[0]
    return frames, sound, rate


@pytest.mark.parametrize(("rate", "form"), [(16000, "s16le"), (44100, "f32le"), (8000, "s16le"), (96000, "f32le")])
def test_sound_goes_in_and_a_playable_video_with_the_same_sound_comes_out(bundle: Path, rate: int, form: str) -> None:
    pcm = noise(1.5, rate)

    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            ready = await start(socket, rate=rate, format=form)
            assert (ready["type"], ready["size"], ready["fps"]) == ("ready", list(TINY.image_size), TINY.fps)
            assert ready["mime"].startswith('video/mp4; codecs="avc1.64')
            await send(socket, pcm, form)
            await socket.send_str(FINISH)
            video, texts = await listen(socket)
            assert texts == [
                {"type": "utterance", "event": "started", "utterance": 0, "played_ms": 0},
                {"type": "utterance", "event": "ended", "utterance": 0, "played_ms": 1500},
                {"type": "end", "reason": "finished", "message": visit.FINISHED.message},
            ]
            assert socket.close_code == 1000
            frames, sound, got = decode(video)
            # Before it, the face idles.
            idle = np.flatnonzero(np.abs(sound) > 0.1)[0] / got
            assert (len(frames) / TINY.fps, len(sound) / got) == pytest.approx((idle + 1.5, idle + 1.5), abs=0.1)
            assert got == 48000

    run(scenario)


def test_the_video_starts_before_the_client_speaks(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            await start(socket)
            async with asyncio.timeout(10):
                first = await socket.receive_bytes()
            assert first[4:8] == b"ftyp"
            assert b"moof" in first

    run(scenario)


def test_a_client_that_pushes_a_file_is_held_to_real_time(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "MOST_SECONDS", 1.2)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), client.ws_connect("/api/stream") as socket:
            await start(socket)
            listening = asyncio.ensure_future(listen(socket))
            await send(socket, noise(2.5, 16000), "s16le")
            await socket.send_str(FINISH)
            (being,) = kiosk.visits.values()
            most = 0.0
            while not listening.done():
                most = max(most, being.unplayed_seconds)
                await asyncio.sleep(0.01)
            _, texts = await listening
            assert {"type": "utterance", "event": "ended", "utterance": 0, "played_ms": 2500} in texts
            assert most < 1.2 + 0.1

    run(scenario)


def test_a_client_that_does_not_read_does_not_hold_up_another_and_is_given_up(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_bytes, seen = web.WebSocketResponse.send_bytes, []

    async def blocked_for_the_first(self: web.WebSocketResponse, *data: object) -> None:
        seen.append(self)
        if self is seen[0]:
            await asyncio.sleep(60)
        await send_bytes(self, *data)

    monkeypatch.setattr(web.WebSocketResponse, "send_bytes", blocked_for_the_first)
    monkeypatch.setattr(websocket, "_SEND_SECONDS", 3.0)

    async def scenario() -> None:
        async with (
            served(bundle) as (client, kiosk),
            client.ws_connect("/api/stream") as stuck,
            client.ws_connect("/api/stream") as other,
        ):
            await start(stuck)
            await send(stuck, noise(2.0, 16000), "s16le")
            await asyncio.sleep(0.2)
            await start(other)
            await send(other, noise(1.0, 16000), "s16le")
            await other.send_str(FINISH)
            video, texts = await listen(other)
            assert texts[-1]["reason"] == "finished"
            assert len(decode(video)[0]) >= 25
            assert len(kiosk.visits) == 1
            _, texts = await listen(stuck)
            assert texts[-1]["reason"] == "slow"
            assert stuck.close_code == 1008

    run(scenario)


def test_silence_ends_a_session_with_a_word(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle, idle_seconds=0.5) as (client, _), client.ws_connect("/api/stream") as socket:
            await start(socket)
            await send(socket, np.zeros(8000, np.float32), "s16le")
            _, texts = await listen(socket)
            assert [text["reason"] for text in texts] == ["idle"]
            assert socket.close_code == 1000

    run(scenario)


def test_a_line_that_went_dead_ends_a_session(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "_LINE_SECONDS", 0.3)

    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            await start(socket, live=True)
            _, texts = await listen(socket)
            assert [text["reason"] for text in texts] == ["line-lost"]

    run(scenario)


def test_a_client_that_never_starts_is_sent_away(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "_START_SECONDS", 0.1)

    async def scenario() -> None:
        async with served(bundle) as (client, kiosk), client.ws_connect("/api/stream") as socket:
            _, texts = await listen(socket)
            assert [text["reason"] for text in texts] == ["silent"]
            assert (socket.close_code, kiosk.admission.taken) == (1008, 0)

    run(scenario)


def test_a_failing_engine_ends_the_session_with_its_sentence(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ChunkLoop, *_: object) -> None:
        raise NumericalError("Stage 'dit' produced NaN or Inf; export the bundle again.")

    monkeypatch.setattr(ChunkLoop, "render", fail)

    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            await start(socket)
            await send(socket, noise(1.0, 16000), "s16le")
            _, texts = await listen(socket)
            assert [(text["type"], text["reason"]) for text in texts] == [("error", "failed")]
            assert "NaN" in texts[0]["message"]
            assert socket.close_code == 1011

    run(scenario)


def test_stopping_tells_everybody_and_gives_the_places_back(bundle: Path) -> None:
    async def scenario() -> None:
        threads = {thread.name for thread in threading.enumerate()}
        async with served(bundle) as (client, kiosk):
            sockets = [await client.ws_connect("/api/stream") for _ in range(2)]
            for socket in sockets:
                await start(socket)
                await send(socket, noise(1.0, 16000), "s16le")
            stopping = asyncio.ensure_future(kiosk.stop())
            for socket in sockets:
                _, texts = await listen(socket)
                assert [text["reason"] for text in texts] == ["stopping"]
                assert socket.close_code == 1001
            await stopping
            assert kiosk.admission.taken == 0
            async with asyncio.timeout(5):
                while {thread.name for thread in threading.enumerate()} - threads & {"rap-edge stream"}:
                    await asyncio.sleep(0.01)

    run(scenario)


@pytest.mark.parametrize(
    ("messages", "code", "words"),
    [
        (["nonsense"], 1008, "not JSON"),
        (["[1]"], 1008, "not a JSON object"),
        (["[" * 4000], 1008, "not JSON"),
        (["x" * 5000], 1008, "longer than"),
        ([b"\0\0"], 1008, "first message"),
        (['{"type": "finish"}'], 1008, "first message"),
        (['{"type": "start", "rate": 1}'], 1008, "rate"),
        (['{"type": "start", "rate": 16000.5}'], 1008, "rate"),
        (['{"type": "start", "rate": true}'], 1008, "rate"),
        (['{"type": "start", "rate": 16000, "format": "mp3"}'], 1008, "format"),
        (['{"type": "start", "rate": 16000, "format": ["s16le"]}'], 1008, "format"),
        (['{"type": "start", "rate": 16000, "channels": 2}'], 1008, "mono"),
        (['{"type": "start", "rate": 16000, "portrait": "../x"}'], 1008, "portrait"),
        (['{"type": "start", "rate": 16000}', b"\0"], 1003, "whole number"),
        (['{"type": "start", "rate": 16000, "format": "f32le"}', b"\0\0\xc0\x7f"], 1007, "NaN"),
        (['{"type": "start", "rate": 16000, "format": "f32le"}', b"\xff\xff\x7f\x7f"], 1007, "magnitude"),
    ],
)
def test_what_breaks_the_rules_gets_a_sentence_and_a_code(
    bundle: Path, messages: list[str | bytes], code: int, words: str
) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            for message in messages:
                await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
            _, texts = await listen(socket)
            assert texts[-1]["type"] == "error"
            assert words in texts[-1]["message"]
            assert socket.close_code == code

    run(scenario)


def test_a_message_above_the_limit_closes_with_its_code(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            await start(socket)
            await socket.send_bytes(bytes(MAX_BINARY + 2))
            await listen(socket)
            assert socket.close_code == 1009

    run(scenario)


def test_a_message_of_exactly_the_limit_is_taken(bundle: Path) -> None:
    async def scenario() -> None:
        async with served(bundle) as (client, _), client.ws_connect("/api/stream") as socket:
            await start(socket, rate=96000, format="f32le")
            await socket.send_bytes(bytes(MAX_BINARY))
            await socket.send_str(FINISH)
            _, texts = await listen(socket)
            assert texts[-1]["reason"] == "finished"
            assert {"type": "utterance", "event": "ended", "utterance": 0, "played_ms": 683} in texts

    run(scenario)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
start_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["start", "finish", "stop"]) | json_values},
    optional={
        "rate": st.sampled_from([0, 8000, 16000, 44100, 96000, 10**30]) | json_values,
        "format": st.sampled_from([*FORMATS, "u8"]) | json_values,
        "channels": st.sampled_from([1, 2]) | json_values,
        "portrait": st.sampled_from([None, "p0", "p1"]) | json_values,
    },
)
good_start = st.builds(
    lambda rate, form: json.dumps({"type": "start", "rate": rate, "format": form}),
    st.sampled_from([8000, 16000, 48000]),
    st.sampled_from(sorted(FORMATS)),
)
messages = st.one_of(
    start_messages.map(json.dumps),
    good_start,
    st.just(FINISH),
    st.text(max_size=40),
    st.binary(max_size=64),
    st.sampled_from([0, 1, 2, 3, 4, 639, 640, 32000, MAX_BINARY, MAX_BINARY + 4]).map(bytes),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.one_of(good_start, messages), rest=st.lists(messages, max_size=6), leave=st.booleans())
def test_any_sequence_of_messages_is_answered_or_closed_and_leaves_no_session(
    kiosk_loop, first: str | bytes, rest: list[str | bytes], leave: bool
) -> None:
    async def scenario(client, kiosk) -> None:
        socket = await client.ws_connect("/api/stream")
        try:
            for message in [first, *rest]:
                await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
            if not leave:
                await socket.send_str(FINISH)
                _, texts = await listen(socket)
                assert socket.close_code in {1000, 1003, 1007, 1008, 1009}
                if socket.close_code not in (1000, 1009):
                    assert texts[-1]["message"].endswith((".", "}"))
                    assert "Traceback" not in texts[-1]["message"]
        except ConnectionError:
            pass
        finally:
            await socket.close()
        async with asyncio.timeout(10):
            while kiosk.admission.taken or kiosk.visits:
                await asyncio.sleep(0.01)

    kiosk_loop(scenario)


@pytest.fixture
def kiosk_loop(bundle: Path, caplog: pytest.LogCaptureFixture):
    """One server for every example; a traceback in the log fails the test."""
    runner = asyncio.Runner()
    context = served(bundle)
    unseen: list[object] = []

    async def enter():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        return await context.__aenter__()

    client, kiosk = runner.run(enter())
    yield lambda scenario: runner.run(scenario(client, kiosk))
    runner.run(context.__aexit__(None, None, None))
    runner.close()
    assert unseen == []
    assert [record for record in caplog.records if record.exc_info] == []


@given(text=st.one_of(st.text(), start_messages.map(json.dumps), json_values.map(json.dumps)))
def test_any_text_is_a_start_message_or_a_sentence(text: str) -> None:
    try:
        answer = parse_start(text)
    except ServeError as error:
        answer = str(error)
    if isinstance(answer, str):
        assert answer.endswith(".")
    else:
        assert 8000 <= answer.sound.rate <= 96000
        assert answer.sound.format in FORMATS


@given(data=st.binary(max_size=64), form=st.sampled_from(sorted(FORMATS)))
def test_any_bytes_are_finite_samples_or_a_sentence(data: bytes, form: str) -> None:
    try:
        answer = decode_pcm(data, form)
    except (ServeError, AudioError) as error:
        answer = str(error)
    if isinstance(answer, str):
        assert answer.endswith(".")
    else:
        assert answer.dtype == np.float32
        assert np.isfinite(answer).all()
        assert answer.size * np.dtype(FORMATS[form]).itemsize == len(data)


def test_the_page_knows_how_far_apart_keyframes_are_since_browsers_cut_at_those_only() -> None:
    page = (ROOT / "runtime" / "serve" / "page" / "websocket.js").read_text()
    assert f"const GROUP_SECONDS = {STREAM.group_seconds};" in page
