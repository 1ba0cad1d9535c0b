"""`Kiosk`: what all requests share: the model, the portraits, the places, the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from ..avatar import Avatar
from ..bundle.bundle import Bundle
from .admission import MOST_PLACES, Admission, KioskFullError, places_for
from .metrics import Metrics
from .portraits import Portraits, sources_of
from .settings import Settings
from .visits.viewer import Viewer
from .visits.visit import STOPPING, Visit

_STOP_SECONDS = 5.0
_TIDY_SECONDS = 5.0


class Kiosk:
    """Made by `open` before the server starts; used from the event loop, closed with `stop`."""

    def __init__(self, settings: Settings, portraits: Portraits, rtf: float, at_once: int = 1) -> None:
        """Offer the measured number of places, or what the settings say; `at_once` chunks may be rendered together."""
        self.settings, self.portraits, self.rtf = settings, portraits, rtf
        self.admission = Admission(settings.max_sessions or places_for(rtf))
        self.metrics = Metrics(sessions=lambda: len(self.visits), places=self.admission.places, rtf=rtf)
        self.visits: dict[str, Visit] = {}
        self.stopping = False
        self.notes: tuple[str, ...] = ()
        # No more chunks at a time than the engines are shared by, and the queue gives each visitor a turn.
        self._pool = ThreadPoolExecutor(at_once, "render")
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
            sources[0][0],
            new_latents=latents,
            viewers=settings.max_sessions or MOST_PLACES,
            engine=settings.engine,
            fallback=settings.fallback,
        )
        rtf = avatar.shared_cost() / avatar.spec.chunk_seconds
        kiosk = cls(settings, Portraits(avatar, sources), rtf, avatar.at_once)
        kiosk.notes = avatar.notes
        return kiosk

    async def open_visit(self, transport: str, portrait: str | None, rate: int, sound_rate: int) -> Visit:
        """Admit a visitor.

        Args:
            transport: "webrtc" or "websocket".
            portrait: an id, or None for the first one.
            rate: of the samples that will come, in Hz.
            sound_rate: of the sound that goes back, in Hz.

        Raises:
            KioskFullError: there is no place, or the server is stopping.
            ServeError: the portrait is unknown.
        """
        if self.stopping:
            raise KioskFullError(STOPPING.message)
        chosen = self.portraits.find(portrait)
        try:
            place = self.admission.take()
        except KioskFullError:
            self.metrics.refused.add(label="full")
            raise
        try:
            viewer = await asyncio.to_thread(lambda: Viewer(chosen.avatar, self._pool, rate, sound_rate))
        except BaseException:
            place.release()
            raise
        visit = Visit(transport, chosen, viewer, place, self.metrics, self.settings.idle_seconds, self._forget)
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
            await visit.gone()
            visit.close(STOPPING)
        self._pool.shutdown(cancel_futures=True)

    def _forget(self, visit: Visit) -> None:
        self.visits.pop(visit.id, None)
        self.note_use()


KIOSK = web.AppKey("KIOSK", Kiosk)
