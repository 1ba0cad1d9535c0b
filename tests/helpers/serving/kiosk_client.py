"""A kiosk over the tiny bundle, in this process, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, CookieJar, WSMsgType
from aiortc import RTCConfiguration, RTCPeerConnection
from yarl import URL

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.serve.kiosk import Kiosk
from rap_edge.runtime.serve.log import is_farewell
from rap_edge.runtime.serve.portraits import Portraits, sources_of
from rap_edge.runtime.serve.server import listening
from rap_edge.runtime.serve.settings import Settings


class Client:
    """`ClientSession`'s verbs, on paths of one server."""

    def __init__(self, session: ClientSession, port: int) -> None:
        self.port = port
        self.get, self.post, self.put, self.delete = session.get, session.post, session.put, session.delete
        self.options, self.ws_connect = session.options, session.ws_connect


@contextlib.asynccontextmanager
async def served(bundle: Path, **settings: Any) -> AsyncIterator[tuple[Client, Kiosk]]:
    """A client and the kiosk it talks to; two places unless the settings say otherwise."""
    opened = Bundle.open(bundle)
    portraits = Portraits(Avatar.open(opened, threads=1), sources_of(opened, ()))
    kiosk = Kiosk(Settings(**{"max_sessions": 2, "port": 0} | settings), portraits, rtf=0.1)
    async with listening(kiosk) as address:
        port = URL(address).port
        assert port is not None
        async with ClientSession(f"http://127.0.0.1:{port}", cookie_jar=CookieJar(unsafe=True)) as session:
            yield Client(session, port), kiosk
    assert not kiosk.visits
    assert kiosk.admission.taken == 0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run an async test; a task or callback that dies unseen fails it."""
    unseen: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: None if is_farewell(context) else unseen.append(context)
        )
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(watched())
    assert unseen == []


async def start(socket: ClientWebSocketResponse, **fields: Any) -> dict[str, Any]:
    """Send a start message; returns the answer."""
    await socket.send_str(json.dumps({"type": "start", "rate": 16000} | fields))
    return await socket.receive_json()


async def listen(socket: ClientWebSocketResponse) -> tuple[bytes, list[dict[str, Any]]]:
    """Everything until the server closes: the video's bytes and the texts that are not figures."""
    video, texts = bytearray(), []
    while True:
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            video += message.data
        elif message.type is WSMsgType.TEXT:
            text = json.loads(message.data)
            if text["type"] != "stats":
                texts.append(text)
        else:
            return bytes(video), texts


async def good_offer() -> str:
    """The SDP of a visitor who never comes."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.createDataChannel("figures")
    peer.addTransceiver("audio")
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    await peer.close()
    return peer.localDescription.sdp
