"""The routes: page, portraits, both media paths, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..errors import PortraitError, RapEdgeError
from .admission import KioskClosingError, KioskFullError
from .http.access import Guard, bearer, middleware, refusal
from .http.body import BodyDamagedError, BodyTooLargeError, BodyTooSlowError, read_body
from .http.connection import note_request
from .http.page_files import add_page
from .kiosk import KIOSK, Kiosk
from .metrics import CONTENT_TYPE
from .portraits import MAX_UPLOAD_BYTES, Portrait
from .sessions import add_sessions
from .status import add_status, state_of
from .tickets import TicketError
from .transports.protocol import FORMATS, MAX_BINARY, MAX_RATE, MIN_RATE
from .transports.webrtc import leave, offer
from .transports.websocket import websocket
from .visits.fed import BehindError, UnknownSessionError
from .visits.visit import RECONNECT

# Bodies that are being received, each of which may take its time, and those that are being decoded.
_UPLOADS_AT_ONCE = 8
_DECODED_AT_ONCE = 2
_RETRY_SECONDS = "5"
_UPLOADS = web.AppKey("UPLOADS", asyncio.Semaphore)
_DECODERS = web.AppKey("DECODERS", asyncio.Semaphore)
_UPLOADING = web.AppKey("UPLOADING", set[str | None])
# Before anything is rendered the visitor is told.
_UNLIKE = "The face will not look like this picture; choose one of head and shoulders, seen from the front."


def build_app(kiosk: Kiosk) -> web.Application:
    """The application; it stops the kiosk when it shuts down."""
    guard = Guard(kiosk.settings, kiosk.metrics)
    app = web.Application(middlewares=[note_request, _sentences(kiosk), middleware(guard)])
    app[KIOSK] = kiosk
    app[_UPLOADS] = asyncio.Semaphore(_UPLOADS_AT_ONCE)
    app[_DECODERS] = asyncio.Semaphore(_DECODED_AT_ONCE)
    app[_UPLOADING] = set()
    app.on_response_prepare.append(guard.add_headers)
    app.on_shutdown.append(_stop)
    app.cleanup_ctx.append(_housekeeping)
    add_page(app)
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/api/kiosk", _describe)
    app.router.add_post("/api/portraits", _upload)
    app.router.add_get("/api/portraits/{id}", _picture)
    app.router.add_get("/api/ice-servers", _ice_servers)
    app.router.add_post("/api/webrtc", offer)
    app.router.add_delete("/api/webrtc/{session}", leave)
    app.router.add_get("/api/stream", websocket)
    add_sessions(app)
    add_status(app)
    return app


def _sentences(kiosk: Kiosk) -> Middleware:
    """A middleware that turns our errors, and the router's, into JSON."""

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except KioskFullError as error:
            return refusal(503, "full", str(error), **{"Retry-After": _RETRY_SECONDS})
        except KioskClosingError as error:
            return refusal(503, RECONNECT.reason, str(error), **{"Retry-After": "1"})
        except TicketError as error:
            kiosk.metrics.refused.add(label="ticket")
            return refusal(403, "ticket", str(error))
        except BodyTooLargeError as error:
            kiosk.metrics.refused.add(label="too-large")
            answer = refusal(413, "too-large", str(error))
        except BodyTooSlowError as error:
            answer = refusal(408, "too-slow", str(error))
        except BodyDamagedError as error:
            kiosk.metrics.refused.add(label="bad-request")
            answer = refusal(400, "bad-request", str(error))
        except UnknownSessionError as error:
            answer = refusal(404, "no-session", str(error))
        except BehindError as error:
            answer = refusal(429, "behind", str(error), **{"Retry-After": _RETRY_SECONDS})
        except RapEdgeError as error:
            kiosk.metrics.refused.add(label="bad-request")
            return refusal(400, "bad-portrait" if isinstance(error, PortraitError) else "bad-request", str(error))
        except web.HTTPNotFound:
            return refusal(404, "not-found", "There is nothing here; open the kiosk's page at /.")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            return refusal(405, "method", f"Only {allowed} is answered here.", Allow=allowed)
        # What is left of the body is not read.
        answer.force_close()
        return answer

    return answered


async def _stop(app: web.Application) -> None:
    await app[KIOSK].stop()


async def _housekeeping(app: web.Application) -> AsyncIterator[None]:
    tidying = asyncio.ensure_future(app[KIOSK].tidy())
    yield
    tidying.cancel()
    await asyncio.gather(tidying, return_exceptions=True)


async def _health(request: web.Request) -> web.Response:
    kiosk = request.app[KIOSK]
    state = {
        "status": state_of(kiosk),
        "sessions": kiosk.admission.taken,
        "sessions_max": kiosk.admission.places,
    }
    return web.json_response(state, status=200 if state["status"] == "ok" else 503)


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[KIOSK].metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})


async def _describe(request: web.Request) -> web.Response:
    kiosk = request.app[KIOSK]
    spec = kiosk.portraits.find(None).avatar.spec
    return web.json_response(
        {
            "portraits": [_entry(portrait) for portrait in kiosk.portraits.listed()],
            "chunk_seconds": spec.chunk_seconds,
            "size": list(spec.image_size),
            "fps": spec.fps,
            "sessions_max": kiosk.admission.places,
            "upload_bytes": MAX_UPLOAD_BYTES,
            "stream": {"formats": sorted(FORMATS), "rates": [MIN_RATE, MAX_RATE], "message_bytes": MAX_BINARY},
        }
    )


def _ask_for_ticket(request: web.Request) -> None:
    """Raises `TicketError` where tickets are needed and the request has none; it is not used up."""
    if (tickets := request.app[KIOSK].tickets) is not None:
        tickets.check(bearer(request) or None)


async def _ice_servers(request: web.Request) -> web.Response:
    _ask_for_ticket(request)
    servers = [server.told() for server in request.app[KIOSK].settings.ice_servers]
    return web.json_response({"ice_servers": servers}, headers={"Cache-Control": "no-store"})


async def _upload(request: web.Request) -> web.Response:
    _ask_for_ticket(request)
    uploads, uploading = request.app[_UPLOADS], request.app[_UPLOADING]
    if request.remote in uploading:
        raise KioskFullError("Your last picture is still being read; try again in a moment.")
    if uploads.locked():
        raise KioskFullError("Other pictures are being read; try again in a moment.")
    uploading.add(request.remote)
    try:
        async with uploads:
            data = await read_body(request, MAX_UPLOAD_BYTES)
            request.app[KIOSK].note_use()
            async with request.app[_DECODERS]:
                portrait = await asyncio.to_thread(request.app[KIOSK].portraits.upload, data)
    finally:
        uploading.discard(request.remote)
    request.app[KIOSK].metrics.uploads.add()
    warning = _UNLIKE if portrait.avatar.portrait_fault else ""
    return web.json_response(_entry(portrait) | {"warning": warning}, status=201)


async def _picture(request: web.Request) -> web.Response:
    portraits = request.app[KIOSK].portraits
    try:
        portrait = portraits.find(request.match_info["id"])
    except RapEdgeError as error:
        return refusal(404, "not-found", str(error))
    headers = {"Content-Type": "image/png", "Cache-Control": "private, max-age=600"}
    return web.Response(body=portrait.png, headers=headers)


def _entry(portrait: Portrait) -> dict[str, object]:
    return {"id": portrait.id, "name": portrait.name, "url": f"/api/portraits/{portrait.id}"}
