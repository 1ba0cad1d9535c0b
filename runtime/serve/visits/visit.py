"""`Visit`: one face that somebody watches: a place, a stream, an idle clock and figures, whatever the transport."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ...errors import SessionError
from ...inputs.convert import Samples
from ...session.chunk import Mark
from ...session.stream import AvatarStream
from ...session.stream_core import Ended, Interrupted, StreamEvent, StreamFrame
from ...spec import ModelSpec
from ..admission import Place
from ..metrics import Metrics
from ..portraits import Portrait
from .seat import End, Mailbox, Message, Seat

# -45 dB of full scale: above a room, below speech.
_VOICE = 5.6e-3
_RECENT_CHUNKS = 3
_WORSE = [Mark.GOOD, Mark.REDUCED, Mark.HELD]
# A microphone that is muted still sends; one that is gone does not.
_LINE_SECONDS = 15.0
_FIGURES_SECONDS = 1.0
# What comes in as closely came at the same time.
_SAME_SECONDS = 0.01
# What may be said ahead of what is heard.
MOST_SECONDS, MOST_UTTERANCES = 60.0, 256

FINISHED = End("finished", "The audio has ended and everything was rendered.")
STOPPING = End("stopping", "The kiosk is being switched off; come back later.", 1001)
RECONNECT = End("reconnect", "This kiosk needs a pause; the conversation goes on at another one.", 1012)
IDLE = End("idle", "Nobody has spoken for a while, so the place was given back; start again when you like.")
LINE_LOST = End("line-lost", "No sound arrives any more; check the microphone and start again.", 1008)


class Visit:
    """Used from the event loop; `end` may be called any number of times, the first reason stays."""

    def __init__(
        self,
        transport: str,
        portrait: Portrait,
        seed: int,
        stream: AvatarStream,
        place: Place,
        metrics: Metrics,
        idle_seconds: float,
        on_close: Callable[[Visit], None],
    ) -> None:
        """Made by the kiosk."""
        self.id = secrets.token_urlsafe(12)
        self.transport, self.portrait, self.seed = transport, portrait, seed
        self.seats: list[Seat] = []
        self.mails: set[Mailbox] = set()
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        # While this holds, silence is no reason to end; None asks whether the visitor has finished.
        self.attended: Callable[[], bool] | None = None
        self.latency: float | None = None
        self.rtf: float | None = None
        self.chunks = self.late_chunks = 0
        self.dropped_seconds = 0.0
        self._stream, self._place, self._metrics = stream, place, metrics
        self._idle_seconds, self._on_close = idle_seconds, on_close
        self._marks: deque[Mark] = deque(maxlen=_RECENT_CHUNKS)
        self._clock = asyncio.get_running_loop().time
        self._spoken, self._line = self._clock(), math.inf
        # What came in when: the utterance, how long it is up to there, the time.
        self._came: deque[tuple[int, float, float]] = deque()
        self._said_ms = 0.0
        self._over = 0
        self._open = False
        self.finished = False
        self._room = asyncio.Event()
        self._closed = False

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return self.portrait.avatar.spec

    @property
    def sound_rate(self) -> int:
        """Of the sound in the frames, in Hz."""
        return self._stream.sample_rate

    @property
    def open(self) -> bool:
        """Whether an utterance has begun and not been ended."""
        return self._open

    @property
    def speaking(self) -> bool:
        """Whether there is anything to interrupt."""
        return not self._stream.quiet

    @property
    def unplayed_seconds(self) -> float:
        """Sound that came in and has not been shown."""
        return self._stream.unplayed_seconds

    def line_lives(self) -> None:
        """Sound comes from a microphone: if it stops to come, the visit ends."""
        if not self.finished:
            self._line = self._clock()

    def touch(self) -> None:
        """Somebody is here: the idle time begins again."""
        self._spoken = max(self._spoken, self._clock())

    def say(self, pcm: Samples, rate: int, came: float | None = None) -> None:
        """Add float32 [samples] of `rate` Hz to what is to be said; `came` is when they came in, now if None.

        Raises:
            AudioError: NaN or Inf among the samples.
        """
        if self.finished or self.ended.done() or not pcm.size:
            return
        try:
            number = self._stream.push(pcm, rate)
        except SessionError:
            # Whoever watches is told why it has failed.
            return
        self._said_ms = self._said_ms * self._open + 1000.0 * pcm.size / rate
        self._open = True
        came = self._clock() if came is None else came
        if self._came and self._came[-1][0] == number and came - self._came[-1][2] < _SAME_SECONDS:
            came = self._came.pop()[2]
        self._came.append((number, self._said_ms, came))
        self._hear_voice(pcm)

    def end_utterance(self) -> None:
        """End what is being said, if anything is."""
        if self._open and not self.ended.done():
            self._open = False
            with suppress(SessionError):
                self._stream.end_utterance()

    def interrupt(self) -> float:
        """Drop what has not been shown; returns the milliseconds that were heard of what was being said."""
        if self.ended.done():
            return 0.0
        self._open = False
        self._came.clear()
        with suppress(SessionError):
            return self._stream.interrupt()
        return 0.0

    def finish(self) -> None:
        """No more sound will come; from now on silence is no reason to end."""
        self.end_utterance()
        self._line = math.inf
        self.finished = True

    def has_room(self) -> bool:
        """Whether more may be said now."""
        waiting = self._came[-1][0] - self._over if self._came else 0
        return self._stream.unplayed_seconds < MOST_SECONDS and waiting < MOST_UTTERANCES

    async def room(self) -> None:
        """Wait until there is room."""
        while not self.has_room() and not self.ended.done():
            self._room.clear()
            await self._room.wait()

    async def frames(self) -> AsyncIterator[StreamFrame]:
        """One per frame time, until everything has been said after `finish`, or the visit has ended.

        Raises:
            NumericalError, EngineError: chunk after chunk could not be rendered.
        """
        async for frame in self._stream:
            self._note(frame)
            yield frame
            if self.finished and self._stream.quiet:
                return

    def shown(self, frame: StreamFrame) -> None:
        """Note that a frame has just been sent."""
        if frame.utterance is None:
            return
        while self._came and self._came[0][:2] <= (frame.utterance, frame.played_ms):
            self._came.popleft()
        if self._came and self._came[0][0] == frame.utterance:
            latency = self._clock() - self._came[0][2]
            self.latency = latency if self.latency is None else 0.9 * self.latency + 0.1 * latency

    def tell(self, message: Message) -> None:
        """Leave a message for everybody who takes part."""
        for mail in self.mails:
            mail.post(message)

    def figures(self) -> Message:
        """For the page: from a sample's arrival to its picture's departure, the real-time factor, the quality."""
        return {
            "type": "stats",
            "latency_ms": None if self.latency is None else round(1e3 * self.latency),
            "rtf": None if self.rtf is None else round(self.rtf, 3),
            "chunks": self.chunks,
            "late_chunks": self.late_chunks,
            "quality": max(self._marks, key=_WORSE.index, default=Mark.GOOD),
            "dropped_seconds": round(self.dropped_seconds, 2),
        }

    async def run(self) -> None:
        """Tell the figures every second until the visit is over, which it is too when nobody speaks any more."""
        while not self.ended.done():
            await asyncio.wait([self.ended], timeout=_FIGURES_SECONDS)
            self._count()
            now = self._clock()
            if self.finished if self.attended is None else self.attended():
                self.touch()
            if now - self._line > _LINE_SECONDS:
                self.end(LINE_LOST)
            elif now - self._spoken > self._idle_seconds:
                self.end(IDLE)
            else:
                self.tell(self.figures())

    def send_elsewhere(self) -> None:
        """Ask everybody who takes part to go on at another kiosk, with the same portrait and seed."""
        self.end(replace(RECONNECT, more={"portrait": self.portrait.id, "seed": self.seed}))

    def end(self, end: End) -> None:
        """Ask everybody who takes part to go."""
        if not self.ended.done():
            self.ended.set_result(end)
        self._room.set()
        for seat in self.seats:
            seat.end(end)

    def close(self, end: End) -> None:
        """Give everything back."""
        if self._closed:
            return
        self._closed = True
        self._place.release()
        self._on_close(self)
        self.end(end)
        self._count()
        self._metrics.ended.add(label=end.reason)
        self._metrics.dropped_seconds.add(self.dropped_seconds)
        self._stream.close()

    def _note(self, frame: StreamFrame) -> None:
        self._metrics.stalled_slots.add(frame.mark is Mark.HELD)
        self._hear_voice(frame.sound)
        for event in frame.events:
            self.tell(told(event))
            if isinstance(event, Ended | Interrupted):
                self._over = event.utterance + 1
        if not self._room.is_set() and self.has_room():
            self._room.set()

    def _hear_voice(self, sound: Samples) -> None:
        if sound.size and float(np.sqrt(np.mean(np.square(sound)))) > _VOICE:
            self.touch()

    def _count(self) -> None:
        """Take note of what has been rendered."""
        for rendering in self._stream.take_renderings():
            if rendering.frames:
                rtf = rendering.seconds / self.spec.chunk_seconds
                self.rtf = rtf if self.rtf is None else 0.7 * self.rtf + 0.3 * rtf
            self.chunks += 1
            self.late_chunks += rendering.late
            self._marks.append(rendering.mark)
            self._metrics.count(rendering)


def told(event: StreamEvent) -> Message:
    """An event as a client is told it."""
    played = event.played_ms if isinstance(event, Ended | Interrupted) else 0.0
    return {
        "type": "utterance",
        "event": type(event).__name__.lower(),
        "utterance": event.utterance,
        "played_ms": round(played),
    }
