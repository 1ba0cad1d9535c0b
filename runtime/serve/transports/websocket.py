"""The plain path: PCM in, fragmented mp4 out, over one WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from aiohttp import WSMessage, WSMsgType, web

from ...errors import AudioError, RapEdgeError, ServeError
from ...outputs.mp4_muxer import STREAM, Mp4Muxer
from ...session.stream_core import StreamFrame
from ..admission import KioskClosingError, KioskFullError
from ..http.connection import HttpConnection, connection_of
from ..kiosk import KIOSK, Kiosk
from ..tickets import TicketError
from ..visits.fed import BehindError, FedVisit, UnknownSessionError
from ..visits.seat import FAILED, LEFT, End, Message, Seat
from ..visits.visit import FINISHED, RECONNECT
from .controls import obey
from .first_of import first_of
from .protocol import MAX_BINARY, Feed, Pcm, Start, Watch, decode_pcm, parse_start
from .threads import to_its_end

_START_SECONDS = 10.0
_SEND_SECONDS = 20.0
# Frames of a fragment, see `STREAM`.
_GROUP = 2
# Close codes of what is no error.
_WELL = frozenset({1000, 1001, 1012})

_Hear = Callable[[bytes], Awaitable[None]]


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """One client from its start message to its close code; raises `ServeError` for what is no handshake."""
    kiosk = request.app[KIOSK]
    # aiohttp refuses a message that is as long as its limit.
    socket = web.WebSocketResponse(max_msg_size=MAX_BINARY + 1, compress=False, heartbeat=20.0)
    try:
        await socket.prepare(request)
    except ValueError:
        # A key that is no base64; aiohttp looks for one kind of it only.
        raise ServeError("This is no WebSocket handshake; use a WebSocket client.") from None
    end = await _serve(kiosk, socket, connection_of(request))
    if not socket.closed:
        await _try(socket.send_json(end.told("end" if end.code in _WELL else "error")))
        await _try(socket.close(code=end.code, message=end.reason.encode()))
    return socket


async def _serve(kiosk: Kiosk, socket: web.WebSocketResponse, connection: HttpConnection) -> End:
    try:
        async with asyncio.timeout(_START_SECONDS):
            message = await socket.receive()
        start = _start(message)
        if start is None:
            return LEFT
        seat, hear = await _admitted(kiosk, start)
    except TimeoutError:
        return End("silent", "No start message came within 10 seconds; connect again.", 1008)
    except KioskFullError as error:
        return End("full", str(error), 1013)
    except KioskClosingError as error:
        return replace(RECONNECT, message=str(error))
    except TicketError as error:
        kiosk.metrics.refused.add(label="ticket")
        return End("ticket", str(error), 1008)
    except UnknownSessionError as error:
        return End("no-session", str(error), 1008)
    except RapEdgeError as error:
        kiosk.metrics.refused.add(label="bad-message")
        return End("bad-start", str(error), 1008)
    end = LEFT
    try:
        with connection.has_place():
            speak = _speak(seat, socket) if not isinstance(start, Feed) else _greet(seat, socket)
            end = await first_of(seat.ended, _listen(seat, socket, hear), _tell_news(seat, socket), speak)
    finally:
        seat.close(end)
    return end


def _start(message: WSMessage) -> Start | Feed | Watch | None:
    if message.type is WSMsgType.TEXT:
        return parse_start(message.data)
    if message.type is WSMsgType.BINARY:
        raise ServeError('The first message must be the text {"type": "start"}; send it before any sound.')
    return None


async def _admitted(kiosk: Kiosk, start: Start | Feed | Watch) -> tuple[Seat, _Hear]:
    """The client's seat, and what takes its binary messages."""
    if isinstance(start, Start):
        seat, source = await kiosk.open_visit("websocket", start.wish, start.sound.rate, start.live)
        return seat, lambda data: source.take(decode_pcm(data, start.sound.format))
    fed = kiosk.fed_visit(start.key.session)
    if isinstance(start, Feed):
        seat = fed.take_feeder(start.key.token)
        return seat, partial(_feed, fed, seat, start.sound)
    seat = fed.take_watcher(start.key.token)
    return seat, partial(_pass_over, seat)


async def _feed(fed: FedVisit, seat: Seat, sound: Pcm, data: bytes) -> None:
    try:
        await fed.say(decode_pcm(data, sound.format), sound.rate)
    except BehindError as error:
        seat.notice("behind", str(error))


async def _pass_over(seat: Seat, data: bytes) -> None:
    seat.notice("unknown-message", "Who watches is not heard; sound was passed over.")


async def _listen(seat: Seat, socket: web.WebSocketResponse, hear: _Hear) -> End:
    """Take messages until the client leaves or its sound breaks the rules; after `finish` wait for `_speak`."""
    try:
        while True:
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                # Not reading is what slows down a client that sends faster than it is heard.
                await hear(message.data)
            elif message.type is WSMsgType.TEXT:
                obey(seat, message.data)
            else:
                return LEFT
    except AudioError as error:
        return End("bad-audio", str(error), 1007)
    except ServeError as error:
        return End("bad-message", str(error), 1003)


async def _tell_news(seat: Seat, socket: web.WebSocketResponse) -> End:
    while True:
        await seat.mail.wait()
        for message in seat.mail.take():
            if not await _try(socket.send_json(message)):
                return LEFT


async def _greet(seat: Seat, socket: web.WebSocketResponse) -> End:
    """Let a feeder begin, until the session is over."""
    await _try(socket.send_json(_ready(seat)))
    return await seat.ended


async def _speak(seat: Seat, socket: web.WebSocketResponse) -> End:
    """Encode and send what is shown."""
    visit, parts = seat.visit, _Parts()
    spec = visit.spec
    muxer = Mp4Muxer(parts, "stream", spec.image_size, spec.fps, visit.sound_rate, 1, STREAM)
    try:
        await socket.send_json(_ready(seat) | {"mime": muxer.mime})
        async for frames in _in_groups(visit.frames()):
            pictures, sound = (np.stack([f.picture for f in frames]), np.concatenate([f.sound for f in frames]))
            await to_its_end(muxer.write, pictures, sound[:, None])
            if fragments := parts.take():
                async with asyncio.timeout(_SEND_SECONDS):
                    await socket.send_bytes(fragments)
            for frame in frames:
                visit.shown(frame)
        await to_its_end(muxer.finish)
        await socket.send_bytes(parts.take())
    except TimeoutError:
        return End("slow", "The connection is too slow for the video; try again nearer to the kiosk.", 1008)
    except ConnectionError:
        return LEFT
    except RapEdgeError as error:
        return End("failed", str(error), FAILED)
    finally:
        muxer.abandon()
    return FINISHED


async def _in_groups(frames: AsyncIterator[StreamFrame]) -> AsyncIterator[list[StreamFrame]]:
    """As many frames as a fragment holds, or what is left in the end."""
    group: list[StreamFrame] = []
    async for frame in frames:
        group.append(frame)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _ready(seat: Seat) -> Message:
    spec = seat.visit.spec
    return {
        "type": "ready",
        "session": seat.visit.id,
        "size": list(spec.image_size),
        "fps": spec.fps,
        "chunk_seconds": spec.chunk_seconds,
    }


class _Parts:
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


async def _try(sending: Awaitable[object] | Coroutine[Any, Any, object]) -> bool:
    """Whether something could be sent; a client may leave at any moment."""
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await sending
    except (ConnectionError, TimeoutError, RuntimeError):
        return False
    return True
