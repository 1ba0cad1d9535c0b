"""`Dispatcher`: gives visitors a box's address and a ticket, and shows what the boxes have to offer."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from rap_edge.runtime.checks.bounds import Text
from rap_edge.runtime.errors import FleetError
from rap_edge.runtime.serve.tickets import OWN_PORTRAIT, Ticket, check_key, sign

from ..placement import FullHouseError, Load
from .keeper import Keeper, Known

_ROUND_SECONDS = 1.0
_PORTRAITS, _URLS = Text(64), Text(512)
# A box that somebody has lost is asked at once, but not for long.
_LOST_SECONDS = 0.7
_MOST_PICTURES = 256


class UnknownPortraitError(FleetError):
    """No box has this portrait."""


class Dispatcher:
    """Used from one event loop; `run` keeps it up to date."""

    def __init__(self, keeper: Keeper, path: str) -> None:
        """Hand out the places of the keeper's boxes; `path` is where visitors ask for one."""
        self.keeper, self._path = keeper, path
        self._pictures: dict[str, tuple[str, bytes]] = {}

    async def run(self) -> None:
        """Keep the boxes, until cancelled."""
        while True:
            began = time.monotonic()
            await self.keeper.round()
            await asyncio.sleep(max(0.1, _ROUND_SECONDS - (time.monotonic() - began)))

    async def reserve(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        """A place for a visitor.

        Args:
            wish: "portrait", an id, "own" or None, and "lost", the address of a box that does not answer any more.

        Returns:
            "url" and "ticket" of the box, and the "portrait" and the "seconds" for which the ticket is good.

        Raises:
            FullHouseError: every place is taken.
            UnknownPortraitError: the portrait is not there.
            FleetError: the wish is none.
        """
        portrait, lost = wish.get("portrait"), wish.get("lost")
        if portrait is not None and _PORTRAITS.fault(portrait):
            raise FleetError("The portrait must be an id from the list of portraits; choose one.")
        if lost is not None and (fault := _URLS.fault(lost)):
            raise FleetError(f'"lost" {fault}.')
        if lost and (gone := self.keeper.by_url(lost)) is not None:
            await self.keeper.ask(gone, _LOST_SECONDS)
        now = time.monotonic()
        reservation = self.keeper.placement.reserve(secrets.token_urlsafe(12), now)
        status, key = self._of(reservation.box)
        ids = [entry["id"] for entry in status["portraits"]]
        chosen = ids[0] if portrait is None else str(portrait)
        if chosen not in (*ids, OWN_PORTRAIT):
            self.keeper.placement.release(reservation.ticket, now)
            raise UnknownPortraitError("This portrait is not here any more; choose another one.")
        seconds = reservation.expires - now
        ticket = Ticket(reservation.ticket, status["box"], chosen, int(time.time() + seconds))
        return {
            "url": status["url"],
            "ticket": sign(ticket, check_key(key)),
            "portrait": chosen,
            "seconds": round(seconds),
        }

    async def describe(self) -> dict[str, Any]:
        """What the page has to know, from a box; raises `FullHouseError` while there is none."""
        status, _, body = await self._first().box.get("/api/kiosk")
        if status != 200:
            raise FullHouseError(1.0)
        answer: dict[str, Any] = json.loads(body)
        return answer | {"dispatcher": self._path, "sessions_max": self.load().places}

    async def picture(self, portrait: str) -> tuple[str, bytes]:
        """A portrait's content type and bytes; raises `UnknownPortraitError`, or `FullHouseError` without a box."""
        known = self._first()
        if portrait not in [entry["id"] for entry in known.status["portraits"]]:
            raise UnknownPortraitError("This portrait is not here any more; choose another one.")
        name = f"{known.status['model']} {portrait}"
        if name not in self._pictures:
            status, kind, body = await known.box.get(f"/api/portraits/{portrait}")
            if status != 200:
                raise FullHouseError(1.0)
            while len(self._pictures) >= _MOST_PICTURES:
                self._pictures.pop(next(iter(self._pictures)))
            self._pictures[name] = kind, body
        return self._pictures[name]

    def load(self) -> Load:
        """How full the fleet is."""
        return self.keeper.placement.load(time.monotonic())

    def document(self) -> dict[str, Any]:
        """Everything about all boxes, for the operator."""
        shown = ("status", "url", "places", "taken", "rtf", "precision", "model", "engine", "device")
        boxes = [
            {"name": name, "generation": None if known.said is None else known.said.order.generation}
            | ({field: known.status[field] for field in shown} if known.status else {"status": "starting"})
            for name, known in self.keeper.known.items()
        ]
        order = self.keeper.order
        return {
            "bundle": order.bundle,
            "generation": order.generation,
            "failure": self.keeper.failure,
            "boxes": boxes,
        }

    def _of(self, name: str) -> tuple[dict[str, Any], str]:
        known = self.keeper.known[name]
        assert known.said is not None  # it was heard of, or it would not be offered
        return known.status, known.said.key

    def _first(self) -> Known:
        ready = self.keeper.ready()
        if not ready:
            raise FullHouseError(1.0)
        return ready[0]
