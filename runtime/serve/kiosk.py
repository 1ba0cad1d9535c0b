"""`Kiosk`: what all requests share: the model, the portraits, the places, the metrics."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from aiohttp import web

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from .admission import MOST_PLACES, Admission, KioskClosingError, KioskFullError, Wish, places_for
from .metrics import Metrics
from .portraits import Portrait, Portraits, cut, sources_of
from .settings import Settings
from .tickets import OWN_PORTRAIT, Ticket, TicketError, Tickets, check_key
from .visits.fed import FedVisit, UnknownSessionError
from .visits.seat import Seat
from .visits.sources import Microphone, Program, Source
from .visits.visit import STOPPING, Visit

# Opus knows no other rate inside WebRTC, and AAC's blocks hold back the least of it.
SOUND_RATE = 48000
_STOP_SECONDS = 5.0
_TIDY_SECONDS = 5.0


class Kiosk:
    """Made by `open` before the server starts; used from the event loop, closed with `stop`."""

    def __init__(self, settings: Settings, portraits: Portraits, rtf: float, model: str = "") -> None:
        """Offer the measured number of places, or what the settings say; `model` is the manifest's sha256."""
        self.settings, self.portraits, self.rtf, self.model = settings, portraits, rtf, model
        # Where visitors come to; the listener knows it where the settings do not say.
        self.public_url = settings.public_url or ""
        self.admission = Admission(settings.max_sessions or places_for(rtf / settings.share))
        self.metrics = Metrics(sessions=lambda: self.admission.taken, places=self.admission.places, rtf=rtf)
        self.visits: dict[str, Visit] = {}
        self.fed: dict[str, FedVisit] = {}
        # This process: a ticket for the one that was here before opens nothing.
        self.box = secrets.token_urlsafe(9)
        self.tickets = None if settings.ticket_key is None else Tickets(check_key(settings.ticket_key), self.box)
        self.stopping = self.draining = False
        self.over = asyncio.Event()
        self.notes: tuple[str, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_use = 0.0

    @classmethod
    def open(cls, bundle: Bundle, settings: Settings) -> Kiosk:
        """Load the engines once, open the portraits, and measure what the machine can hold.

        Raises:
            BundleError, EngineError, NumericalError: the bundle does not run.
            PortraitError: a picture cannot be read.
            SpecError: no chunk of the model is as short as the latency that the settings ask for.
        """
        spec = bundle.manifest.spec
        latents = None if settings.latency is None else spec.with_latency(settings.latency).new_latents
        sources = sources_of(bundle, settings.portraits)
        avatar = Avatar.open(
            bundle,
            cut(spec, sources[0][0], settings.crop),
            new_latents=latents,
            viewers=settings.max_sessions or MOST_PLACES,
            engine=settings.engine,
            fallback=settings.fallback,
            strict_portrait=settings.strict_portraits,
            # Its portraits are cut before they come to it.
            crop="centre",
        )
        rtf = avatar.shared_cost() / avatar.spec.chunk_seconds
        portraits = Portraits(avatar, sources, strict=settings.strict_portraits, crop=settings.crop)
        kiosk = cls(settings, portraits, rtf, bundle.manifest.sha256())
        kiosk.notes = (*avatar.notes, *filter(None, [avatar.portrait_fault]))
        return kiosk

    async def open_visit(self, transport: str, wish: Wish, rate: int, live: bool) -> tuple[Seat, Source]:
        """Admit a visitor who is heard and sees the face.

        Args:
            transport: "webrtc" or "websocket".
            wish: what they ask for.
            rate: of the samples that will come, in Hz.
            live: a microphone gives them.

        Raises:
            KioskFullError: there is no place.
            KioskClosingError: nobody is taken any more.
            TicketError: tickets are needed, and this one does not do.
            ServeError: the portrait is unknown.
        """
        visit = await self._open(transport, wish)
        self.start(visit.run())
        source = Microphone(visit, rate) if live else Program(visit, rate)
        return Seat(visit, source.verbs, lambda _, end: visit.close(end)), source

    async def open_session(self, wish: Wish) -> FedVisit:
        """Make a session that a program feeds and a browser watches; raises as `open_visit`."""
        fed = FedVisit(await self._open("session", wish))
        self.fed[fed.visit.id] = fed
        self.start(fed.run())
        return fed

    def fed_visit(self, session: str) -> FedVisit:
        """A session by its id; raises `UnknownSessionError`."""
        fed = self.fed.get(session)
        if fed is None:
            raise UnknownSessionError()
        return fed

    def seat(self, id_: str) -> Seat | None:
        """Somebody who takes part in a visit, by the seat's id."""
        return next((seat for visit in self.visits.values() for seat in visit.seats if seat.id == id_), None)

    def refuse_when_closing(self) -> None:
        """Raises `KioskClosingError` once nobody is taken any more."""
        if self.stopping:
            raise KioskClosingError(STOPPING.message)
        if self.draining:
            raise KioskClosingError("This kiosk takes no new visitors any more; connect again to reach another one.")

    def find_portrait(self, wish: Wish) -> tuple[Portrait, Ticket | None]:
        """The portrait that somebody asks for, and the ticket that lets them, where tickets are needed.

        Raises:
            TicketError: the ticket does not do.
            ServeError: the portrait is unknown.
        """
        if self.tickets is None:
            return self.portraits.find(wish.portrait), None
        ticket = self.tickets.check(wish.ticket, wish.portrait)
        chosen = self.portraits.find(ticket.portrait if wish.portrait is None else wish.portrait)
        if chosen.uploaded != (ticket.portrait == OWN_PORTRAIT):
            raise TicketError("The ticket is for another portrait; ask for one with the portrait that you want.")
        return chosen, ticket

    async def _open(self, transport: str, wish: Wish) -> Visit:
        self.refuse_when_closing()
        chosen, ticket = self.find_portrait(wish)
        try:
            place = self.admission.take(None if ticket is None else ticket.id)
        except KioskFullError:
            self.metrics.refused.add(label="full")
            raise
        if self.tickets is not None and ticket is not None:
            self.tickets.spend(ticket)
        try:
            stream = await asyncio.to_thread(lambda: chosen.avatar.stream(seed=wish.seed, sample_rate=SOUND_RATE))
        except BaseException:
            place.release()
            raise
        visit = Visit(
            transport, chosen, wish.seed, stream, place, self.metrics, self.settings.idle_seconds, self._forget
        )
        self.visits[visit.id] = visit
        self.metrics.opened.add(label=transport)
        return visit

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests until it ends or the kiosk stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def note_use(self) -> None:
        """Somebody is here who is no visitor yet, or no longer: the idle time begins again."""
        self._last_use = asyncio.get_running_loop().time()

    async def tidy(self) -> None:
        """Forget the visitors' pictures once nobody has been here for the idle time."""
        loop = asyncio.get_running_loop()
        self.note_use()
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            if not self.visits and loop.time() - self._last_use > self.settings.idle_seconds:
                self.portraits.forget_uploads()

    def drain(self, seconds: float) -> None:
        """Take nobody any more; set `over` when the last visitor has left, who is sent elsewhere after `seconds`."""
        if not self.draining:
            self.draining = True
            self.start(self._drain(seconds))

    async def _drain(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.admission.emptied()
        for visit in list(self.visits.values()):
            visit.send_elsewhere()
        self.over.set()

    async def stop(self) -> None:
        """End every visit, tell the visitors, and let go of the threads."""
        self.stopping = True
        for visit in list(self.visits.values()):
            visit.end(STOPPING)
        # Connections end by themselves, with a word to the visitor; what is left after that is cut off.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for visit in list(self.visits.values()):
            for seat in list(visit.seats):
                await seat.gone()
            visit.close(STOPPING)

    def _forget(self, visit: Visit) -> None:
        self.visits.pop(visit.id, None)
        self.fed.pop(visit.id, None)
        self.note_use()


KIOSK = web.AppKey("KIOSK", Kiosk)
