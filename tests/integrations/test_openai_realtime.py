"""The example for the OpenAI Realtime API, against a stand-in of its server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, speech
from helpers.bundles.streams import LIVELY, events, heard
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.sound_files import write_sound
from helpers.places import ROOT

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

import aiohttp
from helpers.frameworks.realtime_server import RATE, RealtimeServer, realtime_server
from openai_realtime import talk

from rap_edge.runtime import Ended, Interrupted, Started, StreamFrame


def pcm(seconds: float) -> np.ndarray:
    return np.rint(np.resize(speech(1.0), round(seconds * RATE)) * 2**15).astype(np.int16)


async def silence():
    while True:
        yield bytes(960)
        await asyncio.sleep(0.02)


def play(script: Callable[[RealtimeServer], Awaitable[None]]) -> tuple[list[StreamFrame], list[dict]]:
    """Talk to a server that follows a script; returns what was shown, and what it was sent beside sound."""
    frames: list[StreamFrame] = []

    def show(frame: StreamFrame) -> bool:
        frames.append(frame)
        return True

    async def main() -> list[dict]:
        async with (
            realtime_server(script) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(server.url) as socket,
        ):
            with avatar(LIVELY).stream(sample_rate=RATE) as stream:
                await talk(stream, socket, silence(), show)
        return [event for event in server.received if event["type"] != "input_audio_buffer.append"]

    return frames, asyncio.run(asyncio.wait_for(main(), 30))


def test_an_answer_is_shown_whole_and_heard_as_it_was_sent() -> None:
    async def script(server: RealtimeServer) -> None:
        await server.hear(0.1)
        await server.say("one", pcm(0.5))
        await server.hear(1.5)

    frames, sent = play(script)
    said = heard([frame for frame in frames if frame.utterance == 0])
    np.testing.assert_array_equal(np.rint(said[: pcm(0.5).size] * 2**15).astype(np.int16), pcm(0.5))
    assert events(frames) == [Started(0), Ended(0, 500.0)]
    assert [event["type"] for event in sent] == ["session.update"]


def test_an_interruption_is_told_with_the_milliseconds_that_were_heard() -> None:
    async def script(server: RealtimeServer) -> None:
        await server.say("one", pcm(5.0), end=False)
        await server.hear(1.2)
        await server.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="visitor")
        await server.say("one", pcm(0.5))
        told = await server.until("conversation.item.truncate")
        assert (told["item_id"], told["content_index"]) == ("one", 0)
        await server.say("two", pcm(0.2))
        await server.hear(3.0)

    frames, sent = play(script)
    (truncated,) = [event for event in sent if event["type"] == "conversation.item.truncate"]
    interrupted = next(event for event in events(frames) if isinstance(event, Interrupted))
    assert truncated["audio_end_ms"] == int(interrupted.played_ms)
    assert 0 < truncated["audio_end_ms"] <= 40 * len([frame for frame in frames if frame.utterance == 0])
    assert events(frames)[-2:] == [Started(1), Ended(1, 200.0)]


def test_events_that_are_unknown_or_broken_are_named_once_and_harm_nothing(capsys) -> None:
    async def script(server: RealtimeServer) -> None:
        for _ in range(2):
            await server.send("weather.changed")
        await server.send("response.created")
        await server.send("response.output_audio.delta", delta="AAA=")
        await server.send("response.output_audio.delta", item_id="one", delta="no base64!")
        await server.send("response.output_audio.delta", item_id="one", delta="AAAA")
        await server.send("error", error={"message": "Your session ends soon."})
        await server.say("one", pcm(0.2))
        await server.hear(1.2)

    frames, _ = play(script)
    assert events(frames) == [Started(0), Ended(0, 200.0)]
    told = capsys.readouterr().err
    assert told.count("weather.changed") == 1
    assert told.count("is left out:") == 3
    assert "Your session ends soon." in told
    assert "response.created" not in told


def test_the_program_sends_a_question_and_writes_the_answer(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    write_sound(tmp_path / "question.wav", speech(1.0)[:, None], 16000, "pcm_s16le", "s16")

    async def script(server: RealtimeServer) -> None:
        await server.hear(0.9)
        await server.say("one", pcm(0.5))
        await server.hear(9.0)

    async def main() -> RealtimeServer:
        async with realtime_server(script) as server:
            program, out = ROOT / "examples" / "openai_realtime.py", tmp_path / "out.mp4"
            options = ["--url", server.url, "--audio", tmp_path / "question.wav", "-o", out, "--seconds", 2]
            command = [sys.executable, *map(str, [program, bundle, *options])]
            process = await asyncio.create_subprocess_exec(*command, env={"OPENAI_API_KEY": "key"})
            assert await asyncio.wait_for(process.wait(), 60) == 0
            return server

    server = asyncio.run(main())
    assert server.authorization == "Bearer key"
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_the_program_of_the_page_writes_an_answer_and_tells_what_was_heard(program) -> None:
    names = program("openai_realtime.md")

    async def script(server: RealtimeServer) -> None:
        await server.until("response.create")
        await server.say("one", pcm(5.0))
        await asyncio.sleep(1.5)
        await server.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="visitor")
        assert (await server.until("conversation.item.truncate"))["item_id"] == "one"

    async def main() -> RealtimeServer:
        async with realtime_server(script) as server:
            names["URL"] = server.url
            await names["main"]()
            return server

    server = asyncio.run(asyncio.wait_for(main(), 30))
    assert 0 < server.received[-1]["audio_end_ms"] < 2000
    assert Path("answer.mp4").stat().st_size > 1000
