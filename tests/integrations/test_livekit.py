"""The avatar as LiveKit Agents' `AvatarRunner` shows it, in the package's mock room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from unittest.mock import AsyncMock

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, speech
from helpers.bundles.streams import LIVELY

pytest.importorskip("livekit.agents", reason="livekit-agents is not installed")

from helpers.frameworks.rooms import Linked, mock_room
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.avatar import (
    AudioSegmentEnd,
    AvatarRunner,
    DataStreamAudioOutput,
    DataStreamAudioReceiver,
    QueueAudioOutput,
)

from rap_edge.integrations.livekit import AvatarVideoGenerator

RATE = 24_000


def sound(seconds: float, rate: int = RATE, channels: int = 1) -> rtc.AudioFrame:
    samples = np.repeat(np.resize(speech(1.0), round(seconds * rate)), channels)
    pcm = np.rint(samples * 2**15).astype(np.int16)
    return rtc.AudioFrame(pcm.tobytes(), rate, channels, pcm.size // channels)


def told(output) -> list[tuple]:
    """What an output tells the agent, in order, as it comes."""
    events: list[tuple] = []
    output.on("playback_started", lambda event: events.append(("started",)))
    output.on("playback_finished", lambda e: events.append(("finished", round(e.playback_position, 2), e.interrupted)))
    return events


class Shown:
    """A runner in a mock room, and what it sends there."""

    def __init__(self, stream, receiver, room) -> None:
        self.generator = AvatarVideoGenerator(stream)
        self.runner = AvatarRunner(room, audio_recv=receiver, video_gen=self.generator, options=self.generator.options)
        self.sent: list[rtc.VideoFrame | rtc.AudioFrame] = []
        push = self.runner.av_sync.push

        async def spied(frame, timestamp=None) -> None:
            self.sent.append(frame)
            await push(frame, timestamp)

        self.runner.av_sync.push = spied

    async def __aenter__(self) -> Shown:
        await self.runner.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.aclose()

    def heard(self) -> np.ndarray:
        frames = [np.frombuffer(frame.data, np.int16) for frame in self.sent if isinstance(frame, rtc.AudioFrame)]
        return np.concatenate([np.empty(0, np.int16), *frames])


def in_one_process(scene: Callable[[QueueAudioOutput, Shown, list], Awaitable[None]]) -> None:
    async def play() -> None:
        with avatar(LIVELY).stream(sample_rate=RATE) as stream:
            output = QueueAudioOutput(sample_rate=RATE, wait_playback_start=True)
            events = told(output)
            async with Shown(stream, output, mock_room()) as shown:
                await asyncio.wait_for(scene(output, shown, events), 30)

    asyncio.run(play())


async def say(output, seconds: float, **more) -> None:
    await output.capture_frame(sound(seconds, **more))
    output.flush()


def test_a_segment_is_heard_as_it_was_and_told_once() -> None:
    async def scene(output, shown, events) -> None:
        await asyncio.sleep(0.3)
        assert events == []
        await say(output, 0.5)
        await output.wait_for_playout()
        await asyncio.sleep(0.3)
        assert events == [("started",), ("finished", 0.52, False)]
        expected = np.frombuffer(sound(0.5).data, np.int16)
        np.testing.assert_array_equal(shown.heard()[: expected.size], expected)

    in_one_process(scene)


def test_every_sound_follows_its_picture_and_idle_pictures_are_silent() -> None:
    async def scene(output, shown, events) -> None:
        await say(output, 0.4)
        await output.wait_for_playout()
        await asyncio.sleep(0.3)
        kinds = "".join("a" if isinstance(frame, rtc.AudioFrame) else "v" for frame in shown.sent)
        assert kinds.strip("v") == "av" * 9 + "a"
        assert kinds.endswith("vvv")
        assert {frame.samples_per_channel for frame in shown.sent if isinstance(frame, rtc.AudioFrame)} == {960}
        assert all(frame.width == LIVELY.width for frame in shown.sent if isinstance(frame, rtc.VideoFrame))

    in_one_process(scene)


def test_segments_that_overlap_are_told_one_by_one() -> None:
    async def scene(output, shown, events) -> None:
        for seconds in (0.4, 0.2, 0.04):
            await say(output, seconds)
        await output.wait_for_playout()
        assert events == [
            *(("started",), ("finished", 0.4, False)),
            *(("started",), ("finished", 0.2, False)),
            *(("started",), ("finished", 0.04, False)),
        ]

    in_one_process(scene)


def test_an_interruption_ends_the_sound_and_the_next_segment_is_whole() -> None:
    async def scene(output, shown, events) -> None:
        await say(output, 5.0)
        while ("started",) not in events:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        output.clear_buffer()
        finished = await output.wait_for_playout()
        assert finished.interrupted
        assert 0.2 < finished.playback_position < 2.0
        played = shown.heard().size
        assert played == round(finished.playback_position * RATE)
        await asyncio.sleep(0.3)
        assert shown.heard().size == played
        assert events == [("started",), ("finished", round(finished.playback_position, 2), True)]
        await say(output, 0.3)
        await output.wait_for_playout()
        assert events[2:] == [("started",), ("finished", 0.32, False)]

    in_one_process(scene)


def test_clearing_returns_when_the_last_sound_has_been_dealt_with() -> None:
    async def main() -> None:
        with avatar(LIVELY).stream(sample_rate=RATE) as stream:
            generator = AvatarVideoGenerator(stream)
            await generator.push_audio(sound(5.0))
            frames = aiter(generator)
            while not isinstance(await anext(frames), rtc.AudioFrame):
                pass
            clearing = asyncio.create_task(generator.clear_buffer())
            await asyncio.sleep(0.1)
            assert not clearing.done()
            assert isinstance(await anext(frames), rtc.VideoFrame)
            await asyncio.wait_for(clearing, 5)
            assert isinstance(await anext(frames), rtc.VideoFrame)

    asyncio.run(main())


def test_sound_of_another_rate_and_number_of_channels_is_taken_and_nonsense_left_out(caplog) -> None:
    async def scene(output, shown, events) -> None:
        await output.capture_frame(sound(0.2, rate=48_000, channels=2))
        await output.capture_frame(sound(0.2, rate=8_000))
        await output.capture_frame(rtc.AudioFrame(bytes(6), 3, 1, 3))
        output.flush()
        await output.wait_for_playout()
        assert events == [("started",), ("finished", 0.4, False)]

    in_one_process(scene)
    (message,) = [record.getMessage() for record in caplog.records if "integrations" in record.name]
    assert "sample rate of 3" in message


def test_a_segment_of_nonsense_alone_is_told_too() -> None:
    async def scene(output, shown, events) -> None:
        await output.capture_frame(rtc.AudioFrame(bytes(6), 3, 1, 3))
        output.flush()
        await output.wait_for_playout()
        assert events == [("finished", 0.0, False)]

    in_one_process(scene)


def test_a_worker_of_its_own_hears_the_agent_through_the_room() -> None:
    async def play() -> None:
        rooms = Linked.rooms()
        output = DataStreamAudioOutput(rooms.agent, destination_identity="avatar", wait_playback_start=True)
        events = told(output)
        receiver = DataStreamAudioReceiver(rooms.avatar, sender_identity="agent")
        with avatar(LIVELY).stream(sample_rate=RATE) as stream:
            async with Shown(stream, receiver, rooms.avatar):
                for seconds in (0.4, 0.2):
                    await say(output, seconds)
                await output.wait_for_playout()
                await say(output, 5.0)
                while len(events) < 5:
                    await asyncio.sleep(0.02)
                output.clear_buffer()
                await output.wait_for_playout()
                await say(output, 0.2)
                await output.wait_for_playout()
        assert events[:5] == [
            ("started",),
            ("finished", 0.4, False),
            ("started",),
            ("finished", 0.2, False),
            ("started",),
        ]
        assert events[5][2]
        assert events[6:] == [("started",), ("finished", 0.2, False)]

    asyncio.run(asyncio.wait_for(play(), 30))


def test_jobs_in_threads_share_an_avatar() -> None:
    shared, heard = avatar(LIVELY), []

    async def job() -> None:
        with shared.stream(sample_rate=RATE) as stream:
            output = QueueAudioOutput(sample_rate=RATE)
            async with Shown(stream, output, mock_room()) as shown:
                await say(output, 0.3)
                await output.wait_for_playout()
                heard.append(shown.heard().size)

    threads = [threading.Thread(target=asyncio.run, args=(job(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert heard == [8 * 960] * 2


def test_a_stream_that_is_closed_lets_nobody_wait() -> None:
    async def main() -> None:
        with avatar(LIVELY).stream(sample_rate=RATE) as stream:
            generator = AvatarVideoGenerator(stream)
            await generator.push_audio(sound(5.0))
            ending = asyncio.create_task(generator.push_audio(AudioSegmentEnd()))
            await asyncio.sleep(0)
            async for _ in generator:
                stream.close()
            await asyncio.wait_for(ending, 5)

    asyncio.run(main())


def test_the_program_of_the_page_says_what_its_file_says(program, monkeypatch) -> None:
    entrypoint, room, heard = program("livekit.md")["entrypoint"], mock_room(), 0

    async def main() -> None:
        capture = rtc.AudioSource.capture_frame

        async def counted(source, frame) -> None:
            nonlocal heard
            heard += frame.samples_per_channel
            await capture(source, frame)

        monkeypatch.setattr(rtc.AudioSource, "capture_frame", counted)
        job = asyncio.create_task(entrypoint(SimpleNamespace(room=room, connect=AsyncMock())))
        while heard < RATE and not job.done():
            await asyncio.sleep(0.05)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert heard >= RATE
    assert room.local_participant.publish_track.await_count == 2


def test_an_agent_session_interrupts_its_face() -> None:
    async def words():
        for _ in range(50):
            yield sound(0.1)

    async def scene(output, shown, events) -> None:
        session = AgentSession()
        session.output.audio = output
        await session.start(Agent(instructions="You are a face."), room=mock_room())
        speech = session.say("A long answer.", audio=words())
        while ("started",) not in events:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        await asyncio.wait_for(session.interrupt(), 5)
        await speech
        played = shown.heard().size
        assert speech.interrupted
        assert played < 2 * RATE
        assert events == [("started",), ("finished", round(played / RATE, 2), True)]
        await session.aclose()

    in_one_process(scene)
