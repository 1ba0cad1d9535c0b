"""The fleet's door on Ray Serve: the page, and a place for whoever asks. Sound and pictures never come through here."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rap_edge.runtime.errors import FleetError, RapEdgeError
from rap_edge.runtime.serve.http.headers import headers
from rap_edge.runtime.serve.http.names import LOOPBACK_NAMES, host_name, is_loopback, origin_netloc
from rap_edge.runtime.serve.http.page_files import read_page
from rap_edge.runtime.serve.http.visitors_token import VisitorsToken, bearer_of, equal
from rap_edge.runtime.serve.transports.protocol import MAX_TEXT, parse_object

from ..placement import FullHouseError, Placement
from .dispatcher import Dispatcher, UnknownPortraitError
from .keeper import Keeper
from .order import BUNDLE, Order
from .ray_boxes import RayBoxes
from .scale import Scale

SESSIONS = "/sessions"
_COOKIE = "rap-fleet"
_OPERATORS_PATHS = frozenset({"/api/fleet", "/api/fleet/bundle"})
# Boxes come and go, so that the page is told of each when it is given a place there.
_HEADERS = headers("'self' http: https: ws: wss:") | {"Server": "rap-fleet"}

_Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Door:
    """Who may come in.

    Attributes:
        host: that the door listens on.
        origin: where visitors open the page, "https://fleet.example".
        token: opens the page to visitors; None to everybody.
        operator_token: opens `/api/fleet`; None to nobody.
    """

    host: str
    origin: str
    token: str | None = field(default=None, repr=False)
    operator_token: str | None = field(default=None, repr=False)


class Ingress:
    """A deployment of one replica, since there is one account of all places; it is rebuilt from the boxes."""

    # Ray waits for it.
    async def __init__(  # type: ignore[misc]
        self, order: Order, least: int, most: int, door: Door
    ) -> None:
        """Keep between `least` and `most` boxes by `order`."""
        self._door, self._token = door, VisitorsToken(door.token)
        self._names = LOOPBACK_NAMES | {host_name(origin_netloc(door.origin) or "")}
        keeper = Keeper(RayBoxes(), order, Scale(least, most), Placement(), time.monotonic)
        self._dispatcher = Dispatcher(keeper, SESSIONS)
        self._keeping = asyncio.get_running_loop().create_task(self._dispatcher.run())
        self._page = read_page()
        self._routes: dict[tuple[str, str], _Handler] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/api/kiosk"): self._describe,
            ("POST", SESSIONS): self._reserve,
            ("GET", "/api/fleet"): self._document,
            ("POST", "/api/fleet/bundle"): self._change,
        }

    def check_health(self) -> None:
        """Asked by Ray, which starts another dispatcher in place of one that keeps nothing any more."""
        if self._keeping.done():
            self._keeping.result()

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        try:
            answer = self._refusal(request) or self._welcome(request) or await self._answer(request)
        except FullHouseError as error:
            wait = str(math.ceil(error.retry_after))
            answer = _refused(503, "full", str(error), **{"Retry-After": wait})
        except UnknownPortraitError as error:
            answer = _refused(404, "no-portrait", str(error))
        except RapEdgeError as error:
            answer = _refused(400, "bad-request", str(error))
        except ClientDisconnect:
            answer = Response(status_code=400)
        for name, value in _HEADERS.items():
            answer.headers[name] = value
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if (handler := self._routes.get((request.method, path))) is not None:
            return await handler(request)
        if request.method == "GET" and path in self._page:
            file = self._page[path]
            tag = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Content-Type": file.content_type}
            same = request.headers.get("If-None-Match") == tag["ETag"]
            return Response(b"" if same else file.body, 304 if same else 200, tag)
        if request.method == "GET" and path.startswith("/api/portraits/"):
            kind, body = await self._dispatcher.picture(path.removeprefix("/api/portraits/"))
            return Response(body, headers={"Content-Type": kind, "Cache-Control": "private, max-age=600"})
        return _refused(404, "not-found", "There is nothing here; open the page at /.")

    async def _health(self, request: Request) -> Response:
        load = self._dispatcher.load()
        state = {"status": "ok" if load.boxes else "starting", "boxes": load.boxes}
        state |= {"sessions": load.taken, "sessions_max": load.places, "failure": self._dispatcher.keeper.failure}
        return JSONResponse(state, 200 if load.boxes else 503)

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(await self._dispatcher.describe())

    async def _reserve(self, request: Request) -> Response:
        return JSONResponse(await self._dispatcher.reserve(await _body(request)), 201)

    async def _document(self, request: Request) -> Response:
        return JSONResponse(self._dispatcher.document())

    async def _change(self, request: Request) -> Response:
        bundle = (await _body(request)).get("bundle")
        if fault := BUNDLE.fault(bundle):
            raise FleetError(f'"bundle" {fault}.')
        self._dispatcher.keeper.change(str(bundle))
        return JSONResponse(self._dispatcher.document(), 202)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that must not be served, else None."""
        host, path = request.headers.get("Host", ""), request.url.path
        if is_loopback(self._door.host) and host_name(host) not in self._names:
            return _refused(421, "host", "This name is not the fleet's; open it by its own address.")
        origin = request.headers.get("Origin")
        ours = (host.lower(), origin_netloc(self._door.origin))
        if request.method != "GET" and origin is not None and origin_netloc(origin) not in ours:
            return _refused(403, "origin", "Another site's page may not use this fleet; open the fleet's own page.")
        bearer, operator = bearer_of(request.headers.get("Authorization", "")), self._door.operator_token
        if operator is not None and equal(bearer, operator):
            return None
        if path in _OPERATORS_PATHS:
            return _refused(401, "operator", "Only the operator may ask for this, with RAP_FLEET_OPERATOR_TOKEN.")
        asked = request.query_params.get("token", "") if path == "/" else ""
        if path != "/healthz" and not self._token.fits(bearer, request.cookies.get(_COOKIE, ""), asked):
            return _refused(401, "token", "This fleet needs its token; open its address with ?token= and the token.")
        return None

    def _welcome(self, request: Request) -> Response | None:
        """Turn a right token in the page's address into a cookie, so that it does not stay in the address bar."""
        if not self._token.needed or request.url.path != "/" or "token" not in request.query_params:
            return None
        answer = Response(status_code=303, headers={"Location": "/"})
        secure = self._door.origin.startswith("https:")
        answer.set_cookie(_COOKIE, self._token.cookie, httponly=True, samesite="strict", secure=secure)
        return answer


async def _body(request: Request) -> dict[str, Any]:
    """A JSON object, or {} where there is none; raises `ServeError`."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_TEXT:
            break
    return parse_object(bytes(body)) if body else {}


def _refused(status: int, reason: str, message: str, **more: str) -> Response:
    return JSONResponse({"error": {"reason": reason, "message": message}}, status, more)
