"""A face for the OpenAI Realtime API, over its WebSocket: what the model says is shown, and stops when it is told to.

    OPENAI_API_KEY=... python examples/openai_realtime.py build/nano-fp32              # microphone, window, loudspeaker
    ... python examples/openai_realtime.py build/nano-fp32 --audio question.wav -o answer.mp4 --seconds 10

`Conversation` is what to take into your own program. Needs the extras `serve` (for aiohttp), `mic` and `window`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import aiohttp
import numpy as np

from rap_edge.runtime import (
    Avatar,
    AvatarStream,
    Ended,
    Interrupted,
    Loudspeaker,
    Microphone,
    Mp4Writer,
    RapEdgeError,
    Showing,
    StreamFrame,
    Window,
    read_audio,
    to_mono,
)

URL = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
RATE = 24_000
Send = Callable[[dict[str, Any]], Awaitable[None]]
KNOWN = ("session.", "conversation.", "response.", "input_audio_buffer.", "output_audio_buffer.", "rate_limits.")


class Conversation:
    """Passes the server's events to a stream of 24 kHz, and the stream's events to the server."""

    def __init__(self, stream: AvatarStream, send: Send) -> None:
        self._stream, self._send = stream, send
        self._items: dict[int, str] = {}
        self._cut: set[str] = set()
        self._strange: set[str] = set()

    def heard(self, event: dict[str, Any]) -> None:
        """Take one event of the server."""
        kind = str(event.get("type"))
        try:
            if kind in ("response.output_audio.delta", "response.audio.delta"):
                # What was cut off may still be on its way.
                if event["item_id"] not in self._cut:
                    pcm = np.frombuffer(base64.b64decode(event["delta"], validate=True), "<i2")
                    self._items[self._stream.push(pcm)] = event["item_id"]
            elif kind in ("response.output_audio.done", "response.audio.done"):
                if event["item_id"] in self._items.values() and event["item_id"] not in self._cut:
                    self._stream.end_utterance()
            elif kind in (
                "input_audio_buffer.speech_started",
                "output_audio_buffer.clear",
                "output_audio_buffer.cleared",
            ):
                self._cut.update(self._items.values())
                self._stream.interrupt()
            elif kind == "error":
                print(f"The server says: {event['error']['message']}", file=sys.stderr)
            elif not kind.startswith(KNOWN) and kind not in self._strange:
                self._strange.add(kind)
                print(f"Events of type {kind!r} are not known and left out.", file=sys.stderr)
        except (KeyError, TypeError, ValueError, RapEdgeError) as error:
            print(f"An event of type {kind!r} is left out: {error!r}", file=sys.stderr)

    async def shown(self, frame: StreamFrame) -> None:
        """Tell the server how much was heard of what was cut off."""
        for event in frame.events:
            if isinstance(event, Ended | Interrupted):
                item = self._items.pop(event.utterance, None)
                if item is not None and isinstance(event, Interrupted):
                    played = int(event.played_ms)
                    truncate = {"type": "conversation.item.truncate", "item_id": item, "content_index": 0}
                    await self._send({**truncate, "audio_end_ms": played})


async def talk(
    stream: AvatarStream,
    socket: aiohttp.ClientWebSocketResponse,
    voice: AsyncIterator[bytes],
    show: Callable[[StreamFrame], bool],
) -> None:
    """Send `voice`, 16-bit blocks of 24 kHz, and show the answers until `show` gives False or the server leaves."""
    conversation = Conversation(stream, socket.send_json)
    audio = {"input": {"format": {"type": "audio/pcm", "rate": RATE}}, "output": {"format": {"type": "audio/pcm"}}}
    await socket.send_json({"type": "session.update", "session": {"type": "realtime", "audio": audio}})

    async def speak() -> None:
        async for block in voice:
            await socket.send_json({"type": "input_audio_buffer.append", "audio": base64.b64encode(block).decode()})

    async def listen() -> None:
        async for message in socket:
            conversation.heard(json.loads(message.data))

    async def look() -> None:
        async for frame in stream:
            await conversation.shown(frame)
            if not show(frame):
                return

    speaking = asyncio.create_task(speak())
    tasks = [asyncio.create_task(listen()), asyncio.create_task(look())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (speaking, *tasks):
            task.cancel()
        await asyncio.gather(speaking, *tasks, return_exceptions=True)


async def blocks(source: Any) -> AsyncIterator[bytes]:
    """A source's sound in real time; interpolation is good enough for ears that only recognise speech."""
    blocks = iter(source)
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        mono = to_mono(block)
        at = np.arange(0, mono.size, source.rate / RATE)
        yield (np.interp(at, np.arange(mono.size), mono) * 32767).astype("<i2").tobytes()
        if not source.live:
            await asyncio.sleep(mono.size / source.rate)


def screen(stack: ExitStack, avatar: Avatar) -> Callable[[StreamFrame], bool]:
    window = Window(avatar.spec.image_size)
    stack.callback(window.close)
    speaker = Loudspeaker(RATE)
    stack.callback(speaker.close)

    def show(frame: StreamFrame) -> bool:
        speaker.write(frame.sound[:, None])
        window.show(frame.picture, Showing(frame.pts, frame.mark))
        return window.poll()

    return show


def video(stack: ExitStack, avatar: Avatar, path: str, seconds: float) -> Callable[[StreamFrame], bool]:
    writer = stack.enter_context(Mp4Writer(path, avatar.spec.image_size, avatar.spec.fps, RATE, 1))

    def show(frame: StreamFrame) -> bool:
        writer.write(frame.picture[None], frame.sound[:, None])
        return frame.pts < seconds

    return show


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="the folder that rap-export wrote")
    parser.add_argument("--url", default=URL)
    parser.add_argument("--audio", help="a sound file to send; by default the microphone")
    parser.add_argument("-o", "--output", help="an mp4; by default a window")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the mp4")
    arguments = parser.parse_args()
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    with ExitStack() as stack:
        avatar = stack.enter_context(Avatar.open(arguments.bundle))
        source = stack.enter_context(read_audio(arguments.audio) if arguments.audio else Microphone(rate=RATE))
        output, seconds = arguments.output, arguments.seconds
        show = video(stack, avatar, output, seconds) if output else screen(stack, avatar)
        stream = stack.enter_context(avatar.stream(sample_rate=RATE))
        async with aiohttp.ClientSession(headers=headers) as session, session.ws_connect(arguments.url) as socket:
            await talk(stream, socket, blocks(source), show)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (RapEdgeError, aiohttp.ClientError) as error:
        sys.exit(f"openai_realtime: {error}")
