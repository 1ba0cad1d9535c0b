"""`FedVisit`: a program says something, and a browser somewhere else sees and hears it."""

from __future__ import annotations

import asyncio
import hmac
import secrets

from ...errors import ServeError
from ...inputs.convert import Samples
from .seat import FAILED, End, Mailbox, Message, Seat
from .sources import slices
from .visit import FINISHED, MOST_SECONDS, STOPPING, Visit

_REPLACED = End("replaced", "Another connection with the same token has taken this place.", 1001)
FED_OVER = End("left", "The program that speaks here has ended the session.")
# With nothing to interrupt, more often is told to nobody.
_AGAIN_SECONDS = 0.5


class UnknownSessionError(ServeError):
    """There is no such session, or its token is another one; nobody is told which."""

    def __init__(self) -> None:
        super().__init__("This session does not exist, or its token is another one; make a new one.")


class BehindError(ServeError):
    """More has been said than will be heard soon."""


class FedVisit:
    """One feeder and one watcher at a time; whoever comes later takes the place of who was there.

    Attributes:
        visit: what is said and seen.
        feed_token, watch_token: what opens either side.
    """

    def __init__(self, visit: Visit) -> None:
        """Wait for both."""
        self.visit = visit
        self.feed_token, self.watch_token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._mail = Mailbox()
        visit.mails.add(self._mail)
        self._feeder: Seat | None = None
        self._watcher: Seat | None = None
        self._muted = False
        self._interrupted = -_AGAIN_SECONDS
        visit.attended = self._attended

    @property
    def watched(self) -> bool:
        """Whether anybody watches; else nothing is shown, and what is said waits."""
        return self._watcher is not None

    async def run(self) -> None:
        """Until the visit is over, which it is too when one side has been missing for the idle time."""
        try:
            await self.visit.run()
        finally:
            self.visit.close(self.visit.ended.result() if self.visit.ended.done() else STOPPING)
            # What knows each other in a circle would keep its encoder until the garbage is collected.
            self.visit.attended = None

    def feed_once(self, token: str) -> None:
        """A program that does not stay connected is here; raises `UnknownSessionError` where `token` is not its."""
        _compare(token, self.feed_token)
        self.visit.touch()

    def take_feeder(self, token: str) -> Seat:
        """The seat of a program that stays connected; raises `UnknownSessionError` where `token` is not its."""
        self.feed_once(token)
        verbs = {"interrupt": self.interrupt, "end_utterance": self.end_utterance, "finish": self.finish}
        before, self._feeder = self._feeder, Seat(self.visit, verbs, self._feeder_left, self._mail)
        self.end_utterance()
        if before is not None:
            before.end(_REPLACED)
        return self._feeder

    def take_watcher(self, token: str) -> Seat:
        """The seat of who watches; raises `UnknownSessionError` where `token` is not theirs."""
        _compare(token, self.watch_token)
        before, self._watcher = self._watcher, Seat(self.visit, {"interrupt": self._barge_in}, self._watcher_left)
        if before is not None:
            before.end(_REPLACED)
        else:
            self._mail.post({"type": "watched", "watched": True})
        return self._watcher

    def require_room(self) -> None:
        """Raises `BehindError` where too much waits to be heard."""
        if not self.visit.has_room():
            raise BehindError(
                f"More than {MOST_SECONDS:g} s of sound wait to be heard; none of this was taken, send it later."
            )

    async def say(self, pcm: Samples, rate: int) -> None:
        """Add float32 [samples] of `rate` Hz to what is said; dropped behind an interrupt until the utterance ends.

        Raises:
            BehindError: too much waits to be heard; nothing was taken.
            AudioError: NaN or Inf among the samples.
        """
        self.require_room()
        async for part in slices(pcm, rate):
            if not self._muted:
                self.visit.say(part, rate)

    def end_utterance(self) -> None:
        """End what is being said; what is said from now on will be heard again if somebody interrupted."""
        self._muted = False
        self.visit.end_utterance()

    def interrupt(self) -> float:
        """See `Visit.interrupt`."""
        self._muted = False
        played = self.visit.interrupt()
        self._mail.post({"type": "interrupt", "by": "feeder", "played_ms": round(played)})
        return played

    def finish(self) -> None:
        """The session ends once everything has been heard."""
        self._muted = False
        self.visit.finish()

    def news(self) -> tuple[Message, ...]:
        """What a feeder that is not connected has not been told."""
        return tuple(message for message in self._mail.take() if message["type"] != "stats")

    def _barge_in(self) -> None:
        """The watcher interrupts: what is on the way of the same utterance must not be said any more."""
        now, speaking = asyncio.get_running_loop().time(), self.visit.speaking
        self._muted |= self.visit.open
        played = self.visit.interrupt()
        if speaking or now - self._interrupted >= _AGAIN_SECONDS:
            self._interrupted = now
            self._mail.post({"type": "interrupt", "by": "watcher", "played_ms": round(played)})

    def _feeder_left(self, seat: Seat, end: End) -> None:
        if seat is self._feeder:
            self._feeder = None
            # What it began is said to its end.
            self.end_utterance()

    def _watcher_left(self, seat: Seat, end: End) -> None:
        if seat is self._watcher:
            self._watcher = None
            self._mail.post({"type": "watched", "watched": False})
            self.visit.touch()
        if end is FINISHED or end.code == FAILED:
            self.visit.end(end)

    def _attended(self) -> bool:
        return self._watcher is not None and (self._feeder is not None or self.visit.finished)


def _compare(given: str, wanted: str) -> None:
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise UnknownSessionError
