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
from ..kiosk import KIOSK, SOUND_RATE
from ..visits.seat import FAILED, LEFT, End, Seat
from ..visits.sources import Source
from ..visits.visit import FINISHED
from .controls import obey
from .first_of import first_of
from .ice import IceServer
from .offer import check_offer
from .protocol import parse_key, parse_object, parse_wish
from .tracks import Outlet

MAX_OFFER = 64 << 10
_CONNECT_SECONDS = 15.0
_CLOSE_SECONDS = 5.0
_LONGEST_GAP_SECONDS = 1.0
# A browser that takes no messages is told nothing more.
_MOST_UNSENT = 256 << 10
_LOST = End("connection-lost", "The connection was lost; it will be tried again.", 1006)
_BAD_OFFER = End("bad-offer", "The offer could not be used.")
_FAILED = End("failed", "The kiosk could not go on; start again.", FAILED)


async def offer(request: web.Request) -> web.Response:
    """Answer an offer `{"sdp": ..., "portrait": ...}` with `{"sdp": ..., "session": ...}`; see `Wish` for the rest.

    With `session` and `token` in place of the portrait, it watches that session.

    Raises:
        ServeError: the offer, its portrait or its session cannot be used.
        KioskFullError: there is no place.
        KioskClosingError: nobody is taken any more.
    """
    kiosk = request.app[KIOSK]
    message = parse_object(await read_body(request, MAX_OFFER), MAX_OFFER)
    sdp = message.get("sdp")
    if not isinstance(sdp, str):
        raise ServeError('The offer has no text under "sdp"; send the description that the browser made.')
    source: Source | None = None
    if "session" in message:
        key = parse_key(message)
        seat = kiosk.fed_visit(key.session).take_watcher(key.token)
    else:
        seat, source = await kiosk.open_visit("webrtc", parse_wish(message), SOUND_RATE, live=True)
    connection = _Connection(seat, source, kiosk.settings.ice_servers)
    kiosk.start(connection.run(sdp))
    answer = await connection.answer
    if request.transport is None:
        # The browser gave up waiting and takes the other path, for which it needs the place.
        seat.end(LEFT)
    return web.json_response({"sdp": answer, "session": seat.id})


async def leave(request: web.Request) -> web.Response:
    """End a connection early; only who opened it knows its id."""
    seat = request.app[KIOSK].seat(request.match_info["session"])
    if seat is not None:
        seat.end(LEFT)
        await seat.gone()
    return web.Response(status=204)


class _Connection:
    """One peer connection, the tasks between it and the client's seat, and their end; it is heard by `source`."""

    def __init__(self, seat: Seat, source: Source | None, ice_servers: tuple[IceServer, ...]) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._seat, self._source, self._ice_servers = seat, source, ice_servers
        self._peer: RTCPeerConnection | None = None
        self._outlet = Outlet(seat.visit.spec.fps, seat.visit.shown)
        self._microphone: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self._connected, self._gone = asyncio.Event(), asyncio.Event()
        self._lost = False
        self._channel: asyncio.Future[RTCDataChannel] = asyncio.get_running_loop().create_future()

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
            self._seat.close(end)
            self.answer.cancel()
        self._tell(end.told())
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
        parts = [self._wait_for_loss(), self._speak(), self._tell_news()]
        if self._source is not None:
            parts.append(self._listen(self._source))
        return await first_of(self._seat.ended, *parts)

    async def _wait_for_loss(self) -> End:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            return _LOST
        await self._gone.wait()
        return _LOST if self._lost else LEFT

    async def _listen(self, source: Source) -> End:
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
                    gap = min(frame.pts - expected, round(_LONGEST_GAP_SECONDS * SOUND_RATE))
                    if gap > 0:
                        await source.take(np.zeros(gap, np.float32))
                expected = None if frame.pts is None else frame.pts + pcm.size
                await source.take(pcm)
        except MediaStreamError:
            return LEFT
        except RapEdgeError as error:
            return End("bad-audio", str(error), 1007)

    async def _speak(self) -> End:
        """Send in step with the clock once connected."""
        await self._connected.wait()
        try:
            await self._outlet.run(self._seat.visit.frames())
        except RapEdgeError as error:
            return End("failed", str(error), FAILED)
        return FINISHED

    async def _tell_news(self) -> End:
        await self._channel
        while True:
            await self._seat.mail.wait()
            for message in self._seat.mail.take():
                self._tell(message)

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and not self._microphone.done():
            self._microphone.set_result(track)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if not self._channel.done():
            self._channel.set_result(channel)
        channel.on("message", lambda text: obey(self._seat, text))

    def _on_state(self, state: str) -> None:
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._lost = state == "failed"
            self._gone.set()

    def _tell(self, message: dict[str, Any]) -> None:
        if not self._channel.done():
            return
        channel = self._channel.result()
        if channel.readyState == "open" and channel.bufferedAmount < _MOST_UNSENT:
            channel.send(json.dumps(message))


def _mono(frame: AudioFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mono: np.ndarray[Any, np.dtype[np.float32]] = samples.mean(axis=1, dtype=np.float32) / np.float32(2**15)
    return mono
