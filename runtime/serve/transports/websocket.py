"""The plain path: PCM in, fragmented mp4 out, over one WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from ...errors import AudioError, RapEdgeError, ServeError
from ...outputs.mp4_muxer import STREAM, Mp4Muxer
from ..admission import KioskFullError
from ..http.connection import HttpConnection, connection_of
from ..kiosk import KIOSK, Kiosk
from ..visits.visit import FINISHED, LEFT, End, Visit
from .first_of import first_of
from .protocol import MAX_BINARY, Start, decode_pcm, is_finish, parse_start
from .threads import to_its_end

_SOUND_RATE = 48000
_START_SECONDS = 10.0
_SEND_SECONDS = 20.0
# A client that pushes a file must not take the machine from those who speak: this far ahead of real time, no more.
_LEAD_SECONDS = 2.0


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
        kind = "end" if end.code in (1000, 1001) else "error"
        await _try(socket.send_json({"type": kind, "reason": end.reason, "message": end.message}))
        await _try(socket.close(code=end.code, message=end.reason.encode()))
    return socket


async def _serve(kiosk: Kiosk, socket: web.WebSocketResponse, connection: HttpConnection) -> End:
    try:
        async with asyncio.timeout(_START_SECONDS):
            message = await socket.receive()
        start = _start(message)
        if start is None:
            return LEFT
        visit = await kiosk.open_visit("websocket", start.portrait, start.rate, _SOUND_RATE)
    except TimeoutError:
        return End("silent", "No start message came within 10 seconds; connect again.", 1008)
    except KioskFullError as error:
        return End("full", str(error), 1013)
    except RapEdgeError as error:
        kiosk.metrics.refused.add(label="bad-message")
        return End("bad-start", str(error), 1008)
    end = LEFT
    try:
        with connection.has_place():
            end = await _converse(visit, socket, start)
    finally:
        visit.close(end)
    return end


def _start(message: WSMessage) -> Start | None:
    if message.type is WSMsgType.TEXT:
        return parse_start(message.data)
    if message.type is WSMsgType.BINARY:
        raise ServeError('The first message must be the text {"type": "start"}; send it before any sound.')
    return None


async def _converse(visit: Visit, socket: web.WebSocketResponse, start: Start) -> End:
    outbox = _Outbox(socket)
    return await first_of(
        visit, _listen(visit, socket, start), _speak(visit, socket), visit.watch(outbox.post), outbox.run()
    )


class _Outbox:
    """Text for a client that may be slow: only the newest is worth sending."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._newest: dict[str, Any] = {}
        self._posted = asyncio.Event()

    def post(self, message: dict[str, Any]) -> None:
        self._newest = message
        self._posted.set()

    async def run(self) -> End:
        while True:
            await self._posted.wait()
            self._posted.clear()
            if not await _try(self._socket.send_json(self._newest)):
                return LEFT


async def _listen(visit: Visit, socket: web.WebSocketResponse, start: Start) -> End:
    """Take sound until the client leaves or breaks the rules; after `finish` wait for `_speak`."""
    try:
        while True:
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                # Not reading is what slows down a client that sends faster than real time.
                await visit.room()
                visit.hear(decode_pcm(message.data, start.format))
            elif message.type is WSMsgType.TEXT:
                if is_finish(message.data):
                    visit.finish()
            else:
                return LEFT
    except AudioError as error:
        return End("bad-audio", str(error), 1007)
    except ServeError as error:
        return End("bad-message", str(error), 1003)


async def _speak(visit: Visit, socket: web.WebSocketResponse) -> End:
    """Encode and send what is rendered."""
    spec = visit.avatar.spec
    parts = _Parts()
    loop = asyncio.get_running_loop()
    muxer = Mp4Muxer(parts, "stream", spec.image_size, spec.fps, visit.sound_rate, 1, STREAM)
    ready = {
        "type": "ready",
        "session": visit.id,
        "mime": muxer.mime,
        "size": spec.image_size,
        "fps": spec.fps,
        "chunk_seconds": spec.chunk_seconds,
    }
    opened: float | None = None
    try:
        await socket.send_json(ready)
        async for piece in visit.pieces():
            await to_its_end(muxer.write, piece.frames, piece.sound)
            async with asyncio.timeout(_SEND_SECONDS):
                await socket.send_bytes(parts.take())
            visit.shown(piece.heard)
            opened = loop.time() if opened is None else opened
            ahead = opened + piece.pts - loop.time()
            await asyncio.sleep(max(0.0, ahead - _LEAD_SECONDS))
        await to_its_end(muxer.finish)
        await socket.send_bytes(parts.take())
    except TimeoutError:
        return End("slow", "The connection is too slow for the video; try again nearer to the kiosk.", 1008)
    except ConnectionError:
        return LEFT
    except RapEdgeError as error:
        return End("failed", str(error), 1011)
    finally:
        muxer.abandon()
    return FINISHED


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
