"""A stand-in for the OpenAI Realtime API: its events over a WebSocket, by a script; it keeps what it is sent."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web

RATE = 24_000
Script = Callable[["RealtimeServer"], Awaitable[None]]


class RealtimeServer:
    """One conversation, played by a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.received: list[dict[str, Any]] = []
        self.authorization = ""
        self.url = ""
        self._socket = web.WebSocketResponse()

    async def send(self, kind: str, **fields: object) -> None:
        await self._socket.send_json({"type": kind, "event_id": "event", **fields})

    async def say(self, item: str, pcm: np.ndarray, end: bool = True) -> None:
        """Send int16 [samples] as an answer, much faster than it is heard."""
        of = {"item_id": item, "content_index": 0, "output_index": 0, "response_id": "response"}
        for start in range(0, pcm.size, 4800):
            delta = base64.b64encode(pcm[start : start + 4800].tobytes()).decode()
            await self.send("response.output_audio.delta", delta=delta, **of)
        if end:
            await self.send("response.output_audio.done", **of)

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Read until so many events of a type have been sent; returns the last."""
        while True:
            found = [event for event in self.received if event["type"] == kind]
            if len(found) >= count:
                return found[count - 1]
            self.received.append(await self._socket.receive_json(timeout=20))

    async def hear(self, seconds: float) -> None:
        """Read until so much sound has been sent."""
        wanted, heard = round(seconds * RATE) * 2, 0
        while heard < wanted:
            self.received.append(await self._socket.receive_json(timeout=20))
            heard = sum(len(base64.b64decode(event.get("audio", ""))) for event in self.received)

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        self.authorization = request.headers.get("Authorization", "")
        await self._socket.prepare(request)
        await self.send("session.created", session={})
        await self._script(self)
        await self._socket.close()
        return self._socket


@asynccontextmanager
async def realtime_server(script: Script) -> AsyncIterator[RealtimeServer]:
    server, app = RealtimeServer(script), web.Application()
    app.add_routes([web.get("/v1/realtime", server._talk)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/v1/realtime"
    try:
        yield server
    finally:
        await runner.cleanup()
