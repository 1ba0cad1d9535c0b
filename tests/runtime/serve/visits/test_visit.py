"""A visit without any transport: what is said, counted and told."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.serving.kiosk_client import run

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.errors import NumericalError
from rap_edge.runtime.serve.admission import Admission
from rap_edge.runtime.serve.metrics import Metrics
from rap_edge.runtime.serve.visits import visit as module
from rap_edge.runtime.serve.visits.seat import LEFT, Mailbox, Seat
from rap_edge.runtime.serve.visits.sources import Microphone, Program
from rap_edge.runtime.serve.visits.visit import Visit

RATE = TINY.sample_rate


def voice(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)


def avatar(**bodies) -> Avatar:
    return Avatar(TINY, tiny_engines(TINY, **bodies), np.full((*TINY.image_size, 3), 70, np.uint8), "fp32")


@asynccontextmanager
async def visiting(**bodies) -> AsyncIterator[Visit]:
    face = avatar(**bodies)
    metrics = Metrics(sessions=lambda: 0, places=1, rtf=0.1)
    portrait = SimpleNamespace(avatar=face)
    being = Visit(
        "websocket", portrait, 0, face.stream(sample_rate=48000), Admission(1).take(), metrics, 60.0, lambda _: None
    )
    try:
        yield being
    finally:
        being.close(LEFT)


async def told(being: Visit, mail: Mailbox, event: str) -> list[dict]:
    """Watch until an event; returns every message."""
    messages: list[dict] = []
    async with asyncio.timeout(20):
        async for _ in being.frames():
            messages += mail.take()
            if any(message.get("event") == event for message in messages):
                return messages
    return messages


def test_a_microphone_that_runs_ahead_loses_the_newest_in_one_piece() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            microphone = Microphone(being, RATE)
            for _ in range(500):
                await microphone.take(voice(0.02))
            assert being.unplayed_seconds == pytest.approx(0.5 + 3 * TINY.chunk_seconds, abs=0.05)
            assert being.dropped_seconds + being.unplayed_seconds == pytest.approx(10.0, abs=0.05)

    run(scenario)


def test_what_a_microphone_hears_of_silence_is_not_rendered() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            microphone = Microphone(being, RATE)
            for _ in range(100):
                await microphone.take(np.zeros(RATE // 50, np.float32))
            assert (being.unplayed_seconds, being.speaking) == (0.0, False)

    run(scenario)


def test_a_program_waits_where_it_is_too_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 2.5)

    async def scenario() -> None:
        async with visiting() as being:
            saying = asyncio.ensure_future(Program(being, RATE).take(voice(8.0)))
            await asyncio.sleep(0.05)
            assert not saying.done()
            assert being.unplayed_seconds == pytest.approx(3.0, abs=0.05)
            being.end(LEFT)
            await saying

    run(scenario)


def test_utterances_without_end_are_too_far_ahead_as_well() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            said = 0
            while being.has_room():
                being.say(voice(0.001), RATE)
                being.end_utterance()
                said += 1
            assert 200 < said < 300

    run(scenario)


def test_a_storm_of_interrupts_and_empty_utterances_does_nothing() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            mail = Mailbox()
            being.mails.add(mail)
            for _ in range(1000):
                assert being.interrupt() == 0.0
                being.end_utterance()
            being.say(voice(0.4), RATE)
            being.end_utterance()
            messages = await told(being, mail, "ended")
            assert [(message["event"], message["utterance"]) for message in messages] == [("started", 0), ("ended", 0)]
            assert messages[-1]["played_ms"] == 400

    run(scenario)


def test_an_interrupt_tells_how_much_was_heard() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            mail = Mailbox()
            being.mails.add(mail)
            being.say(voice(2.0), RATE)
            await told(being, mail, "started")
            played = being.interrupt()
            (message,) = await told(being, mail, "interrupted")
            assert message == {
                "type": "utterance",
                "event": "interrupted",
                "utterance": 0,
                "played_ms": round(played),
            }
            assert 0 < played < 2000
            assert being.unplayed_seconds == 0.0

    run(scenario)


def test_the_latency_is_from_the_arrival_of_what_is_shown() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            now = asyncio.get_running_loop().time()
            being.say(voice(1.0), RATE, came=now - 5.0)
            being.end_utterance()
            async with asyncio.timeout(10):
                async for frame in being.frames():
                    being.shown(frame)
                    if being.latency is not None:
                        break
            assert 5.0 < being.latency < 7.0

    run(scenario)


def test_after_finish_the_frames_end_with_the_last_sample() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            being.say(voice(0.5), RATE)
            being.finish()
            async with asyncio.timeout(10):
                frames = [frame async for frame in being.frames()]
            spoken = [frame for frame in frames if frame.utterance == 0]
            assert len(spoken) == 13  # ceil(0.5 s * 25)
            assert frames[-1] is spoken[-1]
            assert [frame.played_ms for frame in spoken] == pytest.approx([40.0 * i for i in range(13)])

    run(scenario)


def test_rendering_leaves_the_event_loop_free() -> None:
    threads: set[str] = set()

    def slow(buffers) -> None:
        threads.add(threading.current_thread().name)
        time.sleep(0.05)

    async def scenario() -> None:
        async with visiting(conditioner=slow) as being:
            being.say(voice(1.0), RATE)
            being.finish()
            beats = 0

            async def watch() -> None:
                async for _ in being.frames():
                    pass

            watching = asyncio.ensure_future(watch())
            while not watching.done():
                await asyncio.sleep(0.005)
                beats += 1
            assert beats > 50
            assert threads == {"rap-edge stream"}

    run(scenario)


def test_a_stream_that_has_failed_takes_messages_and_tells_the_watcher_why() -> None:
    def broken(buffers) -> None:
        raise NumericalError("Stage 'conditioner' produced NaN or Inf; export the bundle again.")

    async def scenario() -> None:
        async with visiting(conditioner=broken) as being:
            being.say(voice(1.0), RATE)
            worker = being._stream._worker
            await asyncio.to_thread(worker._thread.join, 10)
            being.say(voice(1.0), RATE)
            being.end_utterance()
            assert being.interrupt() == 0.0
            with pytest.raises(NumericalError, match="conditioner"):
                async for _ in being.frames():
                    pass

    run(scenario)


def test_a_client_that_does_not_listen_loses_the_oldest_message_and_hears_the_newest_figures() -> None:
    async def scenario() -> None:
        mail = Mailbox()
        for index in range(3000):
            mail.post({"type": "utterance", "utterance": index})
            mail.post({"type": "stats", "chunks": index})
        messages = mail.take()
        assert messages[0]["utterance"] == 3000 - 1024
        assert messages[-1] == {"type": "stats", "chunks": 2999}
        assert len(messages) == 1025
        assert mail.take() == ()

    run(scenario)


def test_notices_come_once_a_second() -> None:
    async def scenario() -> None:
        async with visiting() as being:
            seat = Seat(being, {}, lambda *_: None)
            for _ in range(100):
                seat.notice("unknown-message", "What?")
            assert len(seat.mail.take()) == 1

    run(scenario)
