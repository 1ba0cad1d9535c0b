"""The browser's path: the microphone comes in and sound and picture go back over one WebRTC connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from aiohttp import web
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

from ...errors import RapEdgeError, ServeError
from ..admission import KioskFullError
from ..http.body import read_body
from ..kiosk import KIOSK
from ..visits.playout import Playout
from ..visits.visit import LEFT, End, Visit
from .first_of import first_of
from .ice import IceServer
from .offer import check_offer
from .protocol import parse_object, parse_portrait
from .tracks import RATE, Outlet

MAX_OFFER = 64 << 10
_CONNECT_SECONDS = 15.0
_CLOSE_SECONDS = 5.0
_LONGEST_GAP_SECONDS = 1.0
_LOST = End("connection-lost", "The connection was lost; it will be tried again.", 1006)
_BAD_OFFER = End("bad-offer", "The offer could not be used.")
_FAILED = End("failed", "The kiosk could not go on; start again.", 1011)


async def offer(request: web.Request) -> web.Response:
    """Answer an offer `{"sdp": ..., "portrait": ...}` with `{"sdp": ..., "session": ...}`.

    Raises:
        ServeError: the offer or its portrait cannot be used.
        KioskFullError: there is no place.
    """
    kiosk = request.app[KIOSK]
    message = parse_object(await read_body(request, MAX_OFFER), MAX_OFFER)
    sdp = message.get("sdp")
    if not isinstance(sdp, str):
        raise ServeError('The offer has no text under "sdp"; send the description that the browser made.')
    visit = await kiosk.open_visit("webrtc", parse_portrait(message), RATE, RATE)
    connection = _Connection(visit, kiosk.settings.ice_servers)
    kiosk.start(connection.run(sdp))
    answer = await connection.answer
    if request.transport is None:
        # The browser gave up waiting and takes the other path, for which it needs the place.
        visit.end(LEFT)
    return web.json_response({"sdp": answer, "session": visit.id})


async def leave(request: web.Request) -> web.Response:
    """End a session early; only who opened it knows its id."""
    visit = request.app[KIOSK].visits.get(request.match_info["session"])
    if visit is not None:
        visit.end(LEFT)
        await visit.gone()
    return web.Response(status=204)


class _Connection:
    """One peer connection, the tasks between it and the visit, and their end."""

    def __init__(self, visit: Visit, ice_servers: tuple[IceServer, ...]) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._visit, self._ice_servers = visit, ice_servers
        self._peer: RTCPeerConnection | None = None
        spec = visit.avatar.spec
        self._outlet = Outlet(Playout(visit.portrait.picture, spec.fps, RATE), spec.fps, visit.shown)
        self._microphone: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self._connected, self._gone = asyncio.Event(), asyncio.Event()
        self._lost = False
        self._channel: RTCDataChannel | None = None

    async def run(self, sdp: str) -> None:
        """Answer the offer and serve until somebody ends it; `answer` gets the answer's SDP or a `ServeError`."""
        try:
            await self._serve(sdp)
        finally:
            await self._close()

    async def _serve(self, sdp: str) -> None:
        end = _BAD_OFFER
        try:
            if await self._answered(sdp):
                end = _FAILED
                end = await self._first_end()
        finally:
            # The place is free for the next visitor before the goodbyes, which may take time and fail.
            self._visit.close(end)
            self.answer.cancel()
        self._tell({"type": "end", "reason": end.reason, "message": end.message})
        # The message needs a moment on the wire before the connection closes.
        await asyncio.sleep(0.2 if self._connected.is_set() else 0.0)

    async def _answered(self, sdp: str) -> bool:
        answering = asyncio.ensure_future(self._negotiate(sdp))
        try:
            await asyncio.wait([answering])
        finally:
            answering.cancel()
        error = answering.exception()
        if error is None:
            self.answer.set_result(answering.result())
        elif isinstance(error, RapEdgeError):
            self.answer.set_exception(error)
        elif isinstance(error, OSError):
            self.answer.set_exception(KioskFullError("This machine has no network port left; try again in a moment."))
        else:
            # aiortc checks a foreign description with asserts and lookups of its own: anything may come out.
            refused = ServeError("The offer is no SDP that can be answered; use another browser.")
            refused.__cause__ = error
            self.answer.set_exception(refused)
        return error is None

    async def _negotiate(self, sdp: str) -> str:
        """The answer's SDP, with all candidates."""
        check_offer(sdp)
        servers = [RTCIceServer(**server.told()) for server in self._ice_servers]
        peer = self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        peer.on("track", self._on_track)
        peer.on("datachannel", self._on_channel)
        peer.on("connectionstatechange", lambda: self._on_state(peer.connectionState))
        # An end of candidates would end the search at once where no name of a browser that hides its addresses can be
        # resolved; its own packets show the way.
        sdp = sdp.replace("a=end-of-candidates\r\n", "")
        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        peer.addTrack(self._outlet.sound)
        peer.addTrack(self._outlet.picture)
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _close(self) -> None:
        """Close the peer connection, also one that hangs or was never whole."""
        if self._peer is None:
            return
        closing = asyncio.ensure_future(self._peer.close())
        await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
        closing.cancel()

    async def _first_end(self) -> End:
        return await first_of(
            self._visit, self._wait_for_loss(), self._listen(), self._speak(), self._visit.watch(self._tell)
        )

    async def _wait_for_loss(self) -> End:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            return _LOST
        await self._gone.wait()
        return _LOST if self._lost else LEFT

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

    def _on_state(self, state: str) -> None:
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._lost = state == "failed"
            self._gone.set()

    def _tell(self, message: dict[str, Any]) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps(message))


def _mono(frame: AudioFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mono: np.ndarray[Any, np.dtype[np.float32]] = samples.mean(axis=1, dtype=np.float32) / np.float32(2**15)
    return mono
