"""What an operator, or the dispatcher of a fleet, asks of a kiosk: its status, and that it takes nobody new."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ..errors import ServeError
from .http.body import read_body
from .kiosk import KIOSK, Kiosk
from .settings import DRAIN
from .transports.protocol import MAX_TEXT, parse_object


def add_status(app: web.Application) -> None:
    """Route both; `Guard` lets the operator alone come here."""
    app.router.add_get("/api/status", _status)
    app.router.add_post("/api/drain", _drain)


def state_of(kiosk: Kiosk) -> str:
    """One word: "ok", "draining" or "stopping"."""
    return "stopping" if kiosk.stopping else "draining" if kiosk.draining else "ok"


def document(kiosk: Kiosk) -> dict[str, Any]:
    """Everything that a dispatcher has to know, of one moment."""
    avatar = kiosk.portraits.find(None).avatar
    return {
        "status": state_of(kiosk),
        "box": kiosk.box,
        "url": kiosk.public_url,
        "places": kiosk.admission.places,
        "taken": kiosk.admission.taken,
        "held_tickets": sorted(kiosk.admission.tickets),
        "spent_tickets": [] if kiosk.tickets is None else kiosk.tickets.spent(),
        "rtf": round(kiosk.rtf, 4),
        "precision": avatar.precision,
        "model": kiosk.model,
        "engine": avatar.engine,
        "device": avatar.device,
        "portraits": [{"id": portrait.id, "name": portrait.name} for portrait in kiosk.portraits.listed()],
    }


async def _status(request: web.Request) -> web.Response:
    return web.json_response(document(request.app[KIOSK]))


async def _drain(request: web.Request) -> web.Response:
    kiosk = request.app[KIOSK]
    body = await read_body(request, MAX_TEXT)
    seconds = (parse_object(body) if body else {}).get("seconds", kiosk.settings.drain)
    if fault := DRAIN.fault(seconds):
        raise ServeError(f'"seconds" {fault}.')
    # The answer is on its way before an empty kiosk ends.
    asyncio.get_running_loop().call_soon(kiosk.drain, seconds)
    return web.json_response({"status": "draining", "taken": kiosk.admission.taken}, status=202)
