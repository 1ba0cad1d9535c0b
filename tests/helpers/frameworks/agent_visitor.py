"""A visitor of the voice agent, by aiortc: speaks when told to, and keeps what is seen and heard, by time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction

import aiohttp
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

RATE, BLOCK = 48000, 960


class Microphone(MediaStreamTrack):
    """Gives what is said into it, int16 [samples], and silence in between, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._blocks, self._began = 0, time.monotonic()
        self.waiting = np.empty(0, np.int16)

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(max(0.0, self._began + self._blocks * BLOCK / RATE - time.monotonic()))
        block = np.zeros(BLOCK, np.int16)
        said, self.waiting = self.waiting[:BLOCK], self.waiting[BLOCK:]
        block[: said.size] = said
        frame = AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._blocks * BLOCK, Fraction(1, RATE)
        self._blocks += 1
        return frame


class Visitor:
    """What came back: pictures and loudness, each with the time."""

    def __init__(self) -> None:
        self.microphone = Microphone()
        self.pictures: list[tuple[float, np.ndarray]] = []
        self.loudness: list[tuple[float, float]] = []

    def loud(self, seconds: float) -> float:
        """The share of the last `seconds` in which something was heard."""
        since = time.monotonic() - seconds
        values = [value > 50 for when, value in self.loudness if when > since]
        return sum(values) / max(len(values), 1)

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> float:
        """Wait for a condition; returns the time that it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + seconds, "what was waited for did not happen"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def watch(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.pictures.append((time.monotonic(), frame.to_ndarray(format="rgb24")))
                else:
                    self.loudness.append((time.monotonic(), float(np.abs(frame.to_ndarray().astype(float)).mean())))
        except MediaStreamError:
            return


@asynccontextmanager
async def visitor(url: str) -> AsyncIterator[Visitor]:
    """Connect to the agent at `url`."""
    guest, connection, tasks = Visitor(), RTCPeerConnection(), []
    connection.on("track", lambda track: tasks.append(asyncio.ensure_future(guest.watch(track))))
    connection.addTransceiver(guest.microphone, direction="sendrecv")
    connection.addTransceiver("video", direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    offer = {"sdp": connection.localDescription.sdp, "type": connection.localDescription.type}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/offer", json=offer) as answer:
        description = await answer.json()
    await connection.setRemoteDescription(RTCSessionDescription(description["sdp"], "answer"))
    try:
        yield guest
    finally:
        await connection.close()
        await asyncio.gather(*tasks)
