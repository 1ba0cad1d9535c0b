"""A peer of aiortc's own, which takes the browser's part."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from av import AudioFrame
from helpers.serving.kiosk_client import Client

RATE, BLOCK = 48000, 960


class Voice(MediaStreamTrack):
    """A microphone that gives noise for a second and silence for a second, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._blocks, self._began = 0, asyncio.get_running_loop().time()
        self._noise = np.random.default_rng(0).integers(-12000, 12000, BLOCK).astype(np.int16)

    async def recv(self) -> AudioFrame:
        due = self._began + self._blocks * BLOCK / RATE
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        loud = self._blocks // 50 % 2 == 0
        frame = AudioFrame.from_ndarray((self._noise * loud)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._blocks * BLOCK, Fraction(1, RATE)
        self._blocks += 1
        return frame


class Peer:
    """What came back."""

    def __init__(self, ice_servers: Sequence[RTCIceServer] = ()) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=list(ice_servers)))
        self.messages: list[dict] = []
        self.tracks: dict[str, MediaStreamTrack] = {}
        self.session = ""
        self.channel: RTCDataChannel

    async def told(self, **words: object) -> dict:
        """The first message with these entries, which must come soon."""
        async with asyncio.timeout(15):
            while True:
                for message in self.messages:
                    if words.items() <= message.items():
                        return message
                await asyncio.sleep(0.02)


@asynccontextmanager
async def connected(
    client: Client, ice_servers: Sequence[RTCIceServer] = (), candidates: str = "", key: dict[str, str] | None = None
) -> AsyncIterator[Peer]:
    """A visitor, or with the `key` of a session its watcher, who is not heard.

    Of both descriptions only the candidates with these words are told to the other side.
    """
    peer = Peer(ice_servers)
    connection = peer.connection
    channel = peer.channel = connection.createDataChannel("messages")
    channel.on("message", lambda text: peer.messages.append(json.loads(text)))
    connection.on("track", lambda track: peer.tracks.update({track.kind: track}))
    if key is None:
        connection.addTransceiver(Voice(), direction="sendrecv")
    else:
        connection.addTransceiver("audio", direction="recvonly")
    connection.addTransceiver("video", direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    offer = {"sdp": only(candidates, connection.localDescription.sdp)} | (key or {})
    answer = await client.post("/api/webrtc", json=offer)
    assert answer.status == 200
    description = await answer.json()
    peer.session = description["session"]
    await connection.setRemoteDescription(RTCSessionDescription(only(candidates, description["sdp"]), "answer"))
    try:
        yield peer
    finally:
        await connection.close()


def only(candidates: str, sdp: str) -> str:
    lines = sdp.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("a=candidate:") or candidates in line)
