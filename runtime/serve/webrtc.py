"""The browser's path: the microphone comes in and sound and picture go back over one WebRTC connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from aiohttp import web
from aiortc import (
    InvalidAccessError,
    InvalidStateError,
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

from ..errors import RapEdgeError, ServeError
from .body import read_body
from .ice import IceServer
from .kiosk import KIOSK
from .playout import Playout
from .protocol import parse_object, parse_portrait
from .tracks import RATE, Outlet
from .visit import LEFT, End, Visit

MAX_OFFER = 64 << 10
_MOST_CANDIDATES = 64
_CONNECT_SECONDS = 15.0
_CLOSE_SECONDS = 5.0
_LONGEST_GAP_SECONDS = 1.0
_LOST = End("connection-lost", "The connection was lost; it will be tried again.", 1006)
# aiortc checks a foreign description with asserts and lookups of its own.
_BAD_OFFER = (
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    InvalidAccessError,
    InvalidStateError,
)


async def offer(request: web.Request) -> web.Response:
    """Answer an offer `{"sdp": ..., "portrait": ...}` with `{"sdp": ..., "session": ...}`."""
    kiosk = request.app[KIOSK]
    message = parse_object(await read_body(request, MAX_OFFER), MAX_OFFER)
    sdp = message.get("sdp")
    if not isinstance(sdp, str) or "m=audio" not in sdp or "m=video" not in sdp:
        raise ServeError("The offer lacks sound or picture; send an SDP that sends the one and receives both.")
    if sdp.count("a=candidate:") > _MOST_CANDIDATES:
        raise ServeError(f"The offer has more than {_MOST_CANDIDATES} candidates; send fewer.")
    visit = await kiosk.open_visit("webrtc", parse_portrait(message), RATE, RATE)
    connection = _Connection(visit, kiosk.settings.ice_servers)
    try:
        answer = await connection.answer(sdp)
    except BaseException as error:
        await connection.close()
        visit.close(End("bad-offer", "The offer could not be used."))
        if isinstance(error, _BAD_OFFER):
            raise ServeError("The offer is no SDP that can be answered; use another browser.") from error
        raise
    kiosk.start(connection.run())
    return web.json_response({"sdp": answer, "session": visit.id})


async def leave(request: web.Request) -> web.Response:
    """End a session early; only who opened it knows its id."""
    visit = request.app[KIOSK].visits.get(request.match_info["session"])
    if visit is not None:
        visit.end(LEFT)
        await visit.gone()
    return web.Response(status=204)


class _Connection:
    """One peer connection and the tasks between it and the visit."""

    def __init__(self, visit: Visit, ice_servers: tuple[IceServer, ...]) -> None:
        self._visit = visit
        servers = [RTCIceServer(**server.told()) for server in ice_servers]
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        spec = visit.avatar.spec
        self._outlet = Outlet(Playout(visit.portrait.picture, spec.fps, RATE), spec.fps, visit.shown)
        self._microphone: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self._connected, self._gone = asyncio.Event(), asyncio.Event()
        self._channel: RTCDataChannel | None = None

    async def answer(self, sdp: str) -> str:
        """The answer's SDP, with all candidates."""
        peer = self._peer
        peer.on("track", self._on_track)
        peer.on("datachannel", self._on_channel)
        peer.on("connectionstatechange", self._on_state)
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        peer.addTrack(self._outlet.sound)
        peer.addTrack(self._outlet.picture)
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def run(self) -> None:
        """Serve until somebody ends it; then give everything back."""
        end = LEFT
        try:
            end = await self._first_end()
        finally:
            # The place is free for the next visitor before the goodbyes.
            self._visit.close(end)
        try:
            self._tell({"type": "end", "reason": end.reason, "message": end.message})
            # The message needs a moment on the wire before the connection closes.
            await asyncio.sleep(0.2 if self._connected.is_set() else 0.0)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the peer connection, also one that hangs."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._peer.close()
        except TimeoutError:
            pass

    async def _first_end(self) -> End:
        tasks: list[asyncio.Future[End]] = [
            self._visit.ended,
            *(
                asyncio.ensure_future(part)
                for part in (self._wait_for_loss(), self._listen(), self._speak(), self._visit.watch(self._tell))
            ),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks[1:], return_exceptions=True)

    async def _wait_for_loss(self) -> End:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            return _LOST
        await self._gone.wait()
        return LEFT if self._peer.connectionState == "closed" else _LOST

    async def _listen(self) -> End:
        """Pass the microphone on; packets that were lost become silence, so that time goes on."""
        track = await self._microphone
        expected: int | None = None
        try:
            while True:
                frame = await track.recv()
                if not isinstance(frame, AudioFrame):
                    continue
                pcm = _mono(frame)
                if expected is not None and frame.pts is not None:
                    gap = min(frame.pts - expected, round(_LONGEST_GAP_SECONDS * RATE))
                    if gap > 0:
                        self._visit.hear(np.zeros(gap, np.float32))
                expected = None if frame.pts is None else frame.pts + pcm.size
                self._visit.hear(pcm)
        except MediaStreamError:
            return LEFT
        except RapEdgeError as error:
            return End("bad-audio", str(error), 1007)

    async def _speak(self) -> End:
        """Render, and send in step with the clock once connected."""
        await self._connected.wait()
        pacing = asyncio.ensure_future(self._outlet.run())
        try:
            async for piece in self._visit.pieces():
                self._outlet.playout.add(piece)
        except RapEdgeError as error:
            return End("failed", str(error), 1011)
        finally:
            pacing.cancel()
            await asyncio.gather(pacing, return_exceptions=True)
            self._visit.count_slots(self._outlet.playout.stalls, self._outlet.playout.skipped)
        return LEFT

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and not self._microphone.done():
            self._microphone.set_result(track)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel

    def _on_state(self) -> None:
        if self._peer.connectionState == "connected":
            self._connected.set()
        elif self._peer.connectionState in ("failed", "closed"):
            self._gone.set()

    def _tell(self, message: dict[str, Any]) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps(message))


def _mono(frame: AudioFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mono: np.ndarray[Any, np.dtype[np.float32]] = samples.mean(axis=1, dtype=np.float32) / np.float32(2**15)
    return mono
