"""`Guest`: one local client, from its start message to its end. Its frames leave in a thread of their own."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from ...errors import RapEdgeError, ServeError
from ...session.stream import AvatarStream
from ...session.stream_core import Ended, Interrupted, StreamEvent
from ..admission import KioskClosingError, KioskFullError
from ..kiosk import Kiosk
from ..transports.first_of import first_of
from ..transports.protocol import Pcm, Start, decode_pcm
from ..visits.seat import LEFT, End
from ..visits.visit import FINISHED, MOST_SECONDS, MOST_UTTERANCES, STOPPING, told
from .address import refuse_strangers
from .control import VERSION, Audio, PassedOverError, encoded, parse_hello, parse_message
from .ring import FrameRing

# Of a line; sound is read in pieces of this.
LIMIT = 64 << 10
_START_SECONDS = 10.0
_FAREWELL_SECONDS = 1.0
_MOST_UNREAD = 256 << 10
_ROOM_SECONDS = 0.1
_SLOW = End("slow", "The client does not read what it is told; read the events.", 1008)


class Guest:
    """Used from the event loop, but for the frames."""

    def __init__(self, kiosk: Kiosk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk over one connection."""
        self._kiosk, self._reader, self._writer = kiosk, reader, writer
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[End] = self._loop.create_future()
        # The utterances that are open, have been said, and are over.
        self._open = self._finished = False
        self._said = self._over = 0

    def end(self, end: End) -> None:
        """Ask it to leave and say why; the first reason stays."""
        if not self._ended.done():
            self._ended.set_result(end)

    async def stay(self, frames: ThreadPoolExecutor) -> None:
        """Serve until either side has had enough; `frames` has a thread for each place."""
        try:
            end = await self._admitted(frames)
            self._tell(end.told())
        finally:
            self._writer.close()
            try:
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._writer.wait_closed()
            except (OSError, TimeoutError):
                self._writer.transport.abort()

    async def _admitted(self, frames: ThreadPoolExecutor) -> End:
        kiosk = self._kiosk
        try:
            refuse_strangers(self._writer.get_extra_info("socket"))
            start = await self._started()
            if start is None:
                return LEFT
            kiosk.refuse_when_closing()
            chosen = kiosk.portraits.find(start.wish.portrait)
            place = kiosk.admission.take()
        except KioskClosingError as error:
            return replace(STOPPING, message=str(error))
        except KioskFullError as error:
            kiosk.metrics.refused.add(label="full")
            return End("full", str(error))
        except ServeError as error:
            kiosk.metrics.refused.add(label="bad-message")
            return End("bad-start", str(error))
        kiosk.metrics.opened.add(label="unix")
        end = LEFT
        try:
            # A portrait is opened when it is chosen for the first time.
            opening = partial(chosen.avatar.stream, seed=start.wish.seed, sample_rate=start.sound.rate)
            with await asyncio.to_thread(opening) as stream:
                end = await self._shown(stream, start.sound, frames)
        except RapEdgeError as error:
            end = End("failed", str(error))
        finally:
            place.release()
            kiosk.metrics.ended.add(label=end.reason)
            kiosk.note_use()
        return end

    async def _started(self) -> Start | None:
        """The start message; None if the client has left before."""
        waiting = asyncio.ensure_future(self._line())
        try:
            parts: list[asyncio.Future[Any]] = [waiting, self._ended]
            await asyncio.wait(parts, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if self._ended.done():
                raise KioskFullError(self._ended.result().message)
            if not waiting.done():
                raise ServeError("No start message came within 10 seconds; connect again.")
            line = waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return None if line is None else parse_hello(line)

    async def _shown(self, stream: AvatarStream, sound: Pcm, frames: ThreadPoolExecutor) -> End:
        """Share frames, and talk."""
        ring = FrameRing(stream.image_size, stream.fps, stream.sample_rate)
        showing: asyncio.Future[None] | None = None
        try:
            self._share(ring)
            showing = self._loop.run_in_executor(frames, self._show, stream, ring)
            return await first_of(self._ended, self._listen(stream, sound.format), self._watched(showing))
        except ConnectionError:
            return LEFT
        except OSError as error:
            return End("failed", f"The frames cannot be shared ({error.strerror}); close other programs or clients.")
        finally:
            stream.close()
            if showing is not None:
                await asyncio.wait([showing])
            ring.close()

    def _share(self, ring: FrameRing) -> None:
        """Answer the start, with the ring's memory and bell."""
        ready = encoded({"type": "ready", "version": VERSION})
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as connection:
            # Nothing else has been sent, so there is room for it.
            socket.send_fds(connection, [ready], [ring.memory, ring.bell])

    def _show(self, stream: AvatarStream, ring: FrameRing) -> None:
        """Put every frame into the ring when it is due, in a thread that does nothing else."""
        for frame in stream:
            number = ring.publish(frame)
            if frame.events:
                self._loop.call_soon_threadsafe(self._happened, stream, number, frame.events)
            if self._finished and stream.quiet:
                return

    async def _watched(self, showing: asyncio.Future[None]) -> End:
        """The reason why there are no more frames."""
        await asyncio.wait([showing])
        error = showing.exception()
        if isinstance(error, RapEdgeError):
            return End("failed", str(error))
        if error is not None:
            raise error
        return FINISHED

    def _happened(self, stream: AvatarStream, number: int, events: tuple[StreamEvent, ...]) -> None:
        for event in events:
            self._tell(told(event) | {"frame": number})
            if isinstance(event, Ended | Interrupted):
                self._over = event.utterance + 1
        for rendering in stream.take_renderings():
            self._kiosk.metrics.count(rendering)

    async def _listen(self, stream: AvatarStream, form: str) -> End:
        """Do what the client says until it leaves or says what nobody can read."""
        try:
            while await self._room(stream) and (line := await self._line()) is not None:
                await self._do(stream, form, line)
                # A storm of messages must not keep the event loop from the other visitors.
                await asyncio.sleep(0)
        except asyncio.IncompleteReadError:
            return LEFT
        except ServeError as error:
            return End("bad-message", str(error))
        return LEFT

    async def _do(self, stream: AvatarStream, form: str, line: bytes) -> None:
        try:
            message = parse_message(line)
            if isinstance(message, Audio):
                data = await self._reader.readexactly(message.size)
                self._hear(stream, data, form)
            elif message == "interrupt":
                self._open = False
                stream.interrupt()
            else:
                if self._open:
                    self._open = False
                    stream.end_utterance()
                self._finished |= message == "finish"
        except PassedOverError as error:
            self._kiosk.metrics.refused.add(label="bad-message")
            self._tell({"type": "notice", "reason": error.reason, "message": str(error)})

    def _hear(self, stream: AvatarStream, data: bytes, form: str) -> None:
        if self._finished:
            raise PassedOverError("finished", "The sound has been finished; connect again to say more.")
        try:
            samples = decode_pcm(data, form)
        except RapEdgeError as error:
            raise PassedOverError("bad-audio", str(error)) from None
        if samples.size:
            self._open, self._said = True, stream.push(samples) + 1

    async def _room(self, stream: AvatarStream) -> bool:
        """Wait until more may be said; returns whether the client is still there."""
        while stream.unplayed_seconds > MOST_SECONDS or self._said - self._over > MOST_UTTERANCES:
            await asyncio.sleep(_ROOM_SECONDS)
            if _has_hung_up(self._writer.get_extra_info("socket").fileno()):
                return False
        return True

    async def _line(self) -> bytes | None:
        """The next line; None where the client has left. Raises `ServeError` for one that is too long."""
        try:
            return await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except asyncio.LimitOverrunError:
            raise ServeError(f"The line is longer than {LIMIT} bytes; send sound behind its line.") from None

    def _tell(self, message: dict[str, Any]) -> None:
        """Send a message, unless the client has stopped reading them."""
        if self._writer.transport.get_write_buffer_size() > _MOST_UNREAD:
            self.end(_SLOW)
        elif not self._writer.is_closing():
            self._writer.write(encoded(message))


def _has_hung_up(connection: int) -> bool:
    """Whether the other side is gone, also while nothing is read from it."""
    waiting = select.poll()
    waiting.register(connection, 0)
    return bool(waiting.poll(0))
