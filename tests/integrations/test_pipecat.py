"""The avatar in a Pipecat pipeline: before a sink of ours, and before the small WebRTC transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, speech
from helpers.bundles.streams import LIVELY

pytest.importorskip("pipecat", reason="pipecat-ai is not installed")

from aiohttp import web
from helpers.frameworks.agent_visitor import visitor
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.utils.text.base_text_aggregator import TextType
from pipecat.workers.runner import WorkerRunner

from rap_edge.integrations.pipecat import AvatarVideoService

RATE = 24_000


def pcm(seconds: float, rate: int = RATE, channels: int = 1) -> bytes:
    samples = np.repeat(np.resize(speech(1.0), round(seconds * rate)), channels)
    return np.rint(samples * 2**15).astype(np.int16).tobytes()


def voice(seconds: float, rate: int = RATE, channels: int = 1) -> TTSAudioRawFrame:
    return TTSAudioRawFrame(pcm(seconds, rate, channels), rate, channels, context_id="turn")


class Watch(FrameProcessor):
    """Lets everything pass, and keeps what goes in one direction."""

    def __init__(self, direction: FrameDirection) -> None:
        super().__init__()
        self._kept_direction = direction
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is self._kept_direction:
            self.seen.append(frame)
        await self.push_frame(frame, direction)

    def of(self, kind: type) -> list:
        return [frame for frame in self.seen if isinstance(frame, kind)]

    async def wait_for(self, kind: type, count: int = 1) -> None:
        while len(self.of(kind)) < count:
            await asyncio.sleep(0.02)


class LocalOutput(BaseOutputTransport):
    """A transport that plays in real time to a list."""

    def __init__(self) -> None:
        size = LIVELY.width
        super().__init__(
            TransportParams(
                audio_out_enabled=True,
                audio_out_sample_rate=RATE,
                video_out_enabled=True,
                video_out_width=size,
                video_out_height=size,
                video_out_framerate=25,
            )
        )
        self.played, self.drawn = bytearray(), 0

    async def start(self, frame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame) -> bool:
        self.played += frame.audio
        await asyncio.sleep(len(frame.audio) / (2 * RATE))
        return True

    async def write_video_frame(self, frame) -> bool:
        self.drawn += 1
        return True


class Scene:
    """A pipeline from what is queued to the avatar, and on."""

    def __init__(self, stream, *behind: FrameProcessor) -> None:
        self.up, self.down = Watch(FrameDirection.UPSTREAM), Watch(FrameDirection.DOWNSTREAM)
        self.worker = PipelineWorker(
            Pipeline([self.up, AvatarVideoService(stream), *behind, self.down]), cancel_on_idle_timeout=False
        )

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)


def run(scene: Callable[..., Awaitable[None]], *behind: FrameProcessor, **bodies) -> Scene:
    """Play a scene to its end, and give what was seen."""

    async def play() -> Scene:
        with avatar(LIVELY, **bodies).stream(sample_rate=RATE) as stream:
            stage = Scene(stream, *behind)
            started = asyncio.Event()
            stage.worker.add_event_handler("on_pipeline_started", lambda *_: started.set())
            runner = WorkerRunner(handle_sigint=False)
            await runner.add_workers(stage.worker)

            async def act() -> None:
                await started.wait()
                await scene(stage)
                await stage.send(EndFrame())

            await asyncio.wait_for(asyncio.gather(runner.run(), act()), 30)
        return stage

    return asyncio.run(play())


def names(stage: Scene, *kinds: type) -> str:
    """What went down, one letter each: v an image, a sound, and the first of a word for others."""
    letters = {OutputImageRawFrame: "v", TTSAudioRawFrame: "a", TTSStartedFrame: "<", TTSStoppedFrame: ">"}
    letters |= {InterruptionFrame: "!", TTSTextFrame: "t", EndFrame: "."}
    return "".join(letters.get(type(frame), "") for frame in stage.down.seen)


def test_every_sound_follows_its_picture_and_the_stop_comes_behind_the_last() -> None:
    async def scene(stage: Scene) -> None:
        await stage.down.wait_for(OutputImageRawFrame, 5)
        await stage.send(TTSStartedFrame(), voice(0.25), voice(0.15), TTSStoppedFrame())
        await stage.down.wait_for(TTSStoppedFrame)
        shown = len(stage.down.of(OutputImageRawFrame))
        await stage.down.wait_for(OutputImageRawFrame, shown + 5)

    stage = run(scene)
    order = names(stage)
    assert order.replace("<", "").strip("v.") == "av" * 9 + "a>"
    assert order.index("<") < order.index("a")
    assert order.endswith("vvvvv.")
    images, sounds = stage.down.of(OutputImageRawFrame), stage.down.of(TTSAudioRawFrame)
    assert all(image.sync_with_audio and image.size == (64, 64) for image in images)
    assert {(len(sound.audio), sound.sample_rate, sound.context_id) for sound in sounds} == {(1920, RATE, "turn")}
    assert b"".join(sound.audio for sound in sounds) == pcm(0.25) + pcm(0.15)


def test_words_keep_their_place_in_the_sound() -> None:
    def word(text: str) -> TTSTextFrame:
        return TTSTextFrame(text, TextType.WORD)

    async def scene(stage: Scene) -> None:
        await stage.send(voice(0.2), word("good"), voice(0.2), word("morning"), TTSStoppedFrame())

    order = names(run(scene)).replace("v", "")
    assert order == "aaaaataaaaat>."


def test_an_interruption_drops_what_has_not_been_heard_and_nothing_old_comes_behind_it() -> None:
    async def scene(stage: Scene) -> None:
        await stage.send(voice(5.0), TTSTextFrame("never said", TextType.WORD), TTSStoppedFrame())
        await stage.down.wait_for(TTSAudioRawFrame, 5)
        await stage.send(InterruptionFrame())
        await stage.down.wait_for(InterruptionFrame)
        await asyncio.sleep(0.3)
        await stage.send(voice(0.2), TTSStoppedFrame())

    before, _, behind = names(run(scene)).replace("v", "").partition("!")
    assert 5 <= len(before) < 30
    assert set(before) == {"a"}
    assert behind == "aaaaa>."


def test_a_frame_that_waited_behind_an_interruption_is_dropped() -> None:
    class Slow(FrameProcessor):
        """Holds up whoever pushes, so that the next frame is always due."""

        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, OutputImageRawFrame):
                await asyncio.sleep(0.1)
            await self.push_frame(frame, direction)

    async def scene(stage: Scene) -> None:
        await stage.send(voice(5.0), TTSStoppedFrame())
        await stage.down.wait_for(TTSAudioRawFrame, 5)
        await stage.send(InterruptionFrame())
        await stage.down.wait_for(InterruptionFrame)
        await asyncio.sleep(0.3)

    _, _, behind = names(run(scene, Slow(enable_direct_mode=True))).partition("!")
    assert "v" in behind
    assert "a" not in behind


def test_the_end_waits_for_what_is_being_said() -> None:
    async def scene(stage: Scene) -> None:
        await stage.send(voice(0.4))

    assert names(run(scene)).replace("v", "") == "a" * 10 + "."


def test_sound_of_another_rate_and_number_of_channels_is_taken() -> None:
    async def scene(stage: Scene) -> None:
        await stage.send(voice(0.2, rate=48_000, channels=2), voice(0.2, rate=8_000), TTSStoppedFrame())

    assert names(run(scene)).replace("v", "") == "a" * 10 + ">."


def test_sound_that_cannot_be_used_is_named_and_passed_on() -> None:
    odd, odder = TTSAudioRawFrame(bytes(3), RATE, 1), TTSAudioRawFrame(bytes(8), 3, 1)

    async def scene(stage: Scene) -> None:
        await stage.send(odd, odder, voice(0.04), TTSStoppedFrame())

    stage = run(scene)
    errors = [frame.error for frame in stage.up.of(ErrorFrame)]
    assert "3 bytes are not whole" in errors[0]
    assert "sample rate of 3" in errors[1]
    assert [len(sound.audio) for sound in stage.down.of(TTSAudioRawFrame)] == [3, 8, 1920]


def test_a_voice_goes_on_without_its_face() -> None:
    def broken(buffers) -> None:
        buffers["velocity"][...] = np.nan

    async def scene(stage: Scene) -> None:
        await stage.up.wait_for(ErrorFrame)
        await stage.send(voice(0.4), TTSStoppedFrame())

    stage = run(scene, dit=broken)
    assert "without a face" in stage.up.of(ErrorFrame)[0].error
    assert names(stage).endswith("a>.")


def test_a_transport_plays_it_in_step_and_knows_when_it_speaks() -> None:
    output = LocalOutput()

    async def scene(stage: Scene) -> None:
        await asyncio.sleep(0.4)
        assert output.drawn > 4
        assert stage.up.of(BotStartedSpeakingFrame) == []
        await stage.send(TTSStartedFrame(), voice(5.0), TTSStoppedFrame())
        await stage.up.wait_for(BotStartedSpeakingFrame)
        await asyncio.sleep(0.3)
        await stage.send(InterruptionFrame())
        await stage.up.wait_for(BotStoppedSpeakingFrame)
        heard, drawn = len(output.played), output.drawn
        await asyncio.sleep(0.4)
        assert len(output.played) <= heard + 1920
        assert output.drawn > drawn + 4
        assert len(stage.up.of(BotStartedSpeakingFrame)) == 1
        del output.played[:]
        await stage.send(TTSStartedFrame(), voice(0.4), TTSStoppedFrame())
        await stage.up.wait_for(BotStoppedSpeakingFrame, 2)
        assert bytes(output.played) == pcm(0.4)

    run(scene, output)


def test_the_program_of_the_page_is_seen_and_heard_by_webrtc(program) -> None:
    names = program("pipecat.md")

    async def main() -> None:
        runner = web.AppRunner(names["app"])
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with visitor(f"http://127.0.0.1:{runner.addresses[0][1]}") as guest:
            await guest.until(lambda: guest.loud(0.5) > 0.7)
            assert len(guest.pictures) > 5
        for talk in names["talks"]:
            talk.cancel()
        await asyncio.wait(names["talks"], timeout=5)
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(main(), 60))
