"""`Kiosk`: what all requests share: the model, the portraits, the places, the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from .admission import MOST_PLACES, Admission, KioskFullError, places_for
from .metrics import Metrics
from .portraits import Portraits, cut, sources_of
from .settings import Settings
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

    def __init__(self, settings: Settings, portraits: Portraits, rtf: float) -> None:
        """Offer the measured number of places, or what the settings say."""
        self.settings, self.portraits, self.rtf = settings, portraits, rtf
        self.admission = Admission(settings.max_sessions or places_for(rtf))
        self.metrics = Metrics(sessions=lambda: self.admission.taken, places=self.admission.places, rtf=rtf)
        self.visits: dict[str, Visit] = {}
        self.fed: dict[str, FedVisit] = {}
        self.stopping = False
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
        kiosk = cls(settings, Portraits(avatar, sources, strict=settings.strict_portraits, crop=settings.crop), rtf)
        kiosk.notes = (*avatar.notes, *filter(None, [avatar.portrait_fault]))
        return kiosk

    async def open_visit(self, transport: str, portrait: str | None, rate: int, live: bool) -> tuple[Seat, Source]:
        """Admit a visitor who is heard and sees the face.

        Args:
            transport: "webrtc" or "websocket".
            portrait: an id, or None for the first one.
            rate: of the samples that will come, in Hz.
            live: a microphone gives them.

        Raises:
            KioskFullError: there is no place, or the server is stopping.
            ServeError: the portrait is unknown.
        """
        visit = await self._open(transport, portrait)
        self.start(visit.run())
        source = Microphone(visit, rate) if live else Program(visit, rate)
        return Seat(visit, source.verbs, lambda _, end: visit.close(end)), source

    async def open_session(self, portrait: str | None) -> FedVisit:
        """Make a session that a program feeds and a browser watches; raises as `open_visit`."""
        fed = FedVisit(await self._open("session", portrait))
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

    async def _open(self, transport: str, portrait: str | None) -> Visit:
        if self.stopping:
            raise KioskFullError(STOPPING.message)
        chosen = self.portraits.find(portrait)
        try:
            place = self.admission.take()
        except KioskFullError:
            self.metrics.refused.add(label="full")
            raise
        try:
            stream = await asyncio.to_thread(lambda: chosen.avatar.stream(sample_rate=SOUND_RATE))
        except BaseException:
            place.release()
            raise
        visit = Visit(transport, chosen, stream, place, self.metrics, self.settings.idle_seconds, self._forget)
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
