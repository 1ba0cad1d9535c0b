"""A voice agent on one machine, without any network: Pipecat, espeak-ng, a scripted language model and a face.

    python examples/voice_agent.py build/nano-fp32          # then open http://127.0.0.1:8100/ and talk

It answers whenever the visitor has stopped speaking, and stops when the visitor speaks again. Needs the extras
`pipecat` and `examples`; put real services for speech recognition, language and voice in the place of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    Frame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport
from pipecat.workers.runner import WorkerRunner
from tts import Espeak

from rap_edge.integrations.pipecat import AvatarVideoService
from rap_edge.runtime import Avatar, RapEdgeError

RATE = 24_000
SCRIPT = (
    "Good morning. I am a face that was drawn by a program, and every word of mine is made on this machine. "
    "You may interrupt me whenever you like.",
    "You have interrupted me, or I have finished. Either way, here is my second sentence, and it is a long one, "
    "so that there is time to interrupt it, too.",
    "That is all I know by heart. Let us begin again.",
)


class ScriptedModel(FrameProcessor):
    """A language model that knows its answers by heart, and yields the word to the visitor."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = itertools.cycle(SCRIPT)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, VADUserStartedSpeakingFrame):
            await self.broadcast_interruption()
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            await self.push_frame(TTSSpeakFrame(next(self._lines)))


class EspeakService(TTSService):
    """espeak-ng, sentence by sentence."""

    def __init__(self, voice: Espeak, thread: ThreadPoolExecutor) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings)
        self._voice, self._thread = voice, thread

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        pcm = await asyncio.get_running_loop().run_in_executor(self._thread, self._voice.speak, text)
        yield TTSAudioRawFrame(pcm.tobytes(), self._voice.rate, 1, context_id=context_id)


class Agents:
    """A conversation for every visitor, over one avatar and one voice."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar, self._voice, self._thread = avatar, Espeak(), ThreadPoolExecutor(1)
        self._talks: set[asyncio.Task[None]] = set()
        self._workers: set[PipelineWorker] = set()

    async def offer(self, request: web.Request) -> web.Response:
        offer, connection = await request.json(), SmallWebRTCConnection()
        await connection.initialize(offer["sdp"], offer["type"])
        talk = asyncio.create_task(self._talk(connection))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        return web.json_response(connection.get_answer())

    async def _talk(self, connection: SmallWebRTCConnection) -> None:
        spec = self._avatar.spec
        params = TransportParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_sample_rate=RATE,
            video_out_enabled=True,
            video_out_width=spec.width,
            video_out_height=spec.height,
            video_out_framerate=spec.fps,
        )
        transport = SmallWebRTCTransport(connection, params)
        with self._avatar.stream(sample_rate=RATE) as stream:
            parts = [
                transport.input(),
                VADProcessor(vad_analyzer=SileroVADAnalyzer()),
                ScriptedModel(),
                EspeakService(self._voice, self._thread),
                AvatarVideoService(stream),
                transport.output(),
            ]
            worker = PipelineWorker(Pipeline(parts))

            async def leave(*_: object) -> None:
                await worker.cancel()

            transport.add_event_handler("on_client_disconnected", leave)
            runner = WorkerRunner(handle_sigint=False)
            await runner.add_workers(worker)
            self._workers.add(worker)
            await runner.run()
            self._workers.discard(worker)

    async def close(self, app: web.Application) -> None:
        """Let every conversation end before the program does."""
        for worker in list(self._workers):
            await worker.cancel()
        await asyncio.gather(*self._talks)


async def page(request: web.Request) -> web.FileResponse:
    return web.FileResponse(Path(__file__).with_suffix(".html"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="the folder that rap-export wrote")
    parser.add_argument("--portrait", help="a picture file; by default the bundle's golden portrait")
    parser.add_argument("--port", type=int, default=8100)
    arguments = parser.parse_args()
    with Avatar.open(arguments.bundle, arguments.portrait) as avatar:
        app, agents = web.Application(), Agents(avatar)
        app.add_routes([web.get("/", page), web.post("/offer", agents.offer)])
        app.on_shutdown.append(agents.close)
        web.run_app(app, host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    try:
        main()
    except RapEdgeError as error:
        sys.exit(f"voice_agent: {error}")
