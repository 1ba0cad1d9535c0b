"""Who may ask for what: host, token, origin; and what every answer says to the browser."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..metrics import Metrics
from ..settings import Settings
from .headers import headers
from .names import LOOPBACK_NAMES, host_name, origin_netloc
from .visitors_token import VisitorsToken, bearer_of, equal

COOKIE = "rap-serve"
_OPEN_PATHS = frozenset({"/healthz"})
_OPERATORS_PATHS = frozenset({"/api/status", "/api/drain"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_HEADERS = headers()

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Session-Token",
    "Access-Control-Max-Age": "600",
}


class Guard:
    """A middleware that refuses before any handler runs."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Guard what the settings say."""
        self._settings, self._metrics = settings, metrics
        own = () if settings.public_url is None else (settings.public_url,)
        self._origins = {origin.rstrip("/").lower() for origin in (*settings.origins, *own)}
        named = (host_name(origin_netloc(origin) or "") for origin in self._origins)
        self._names = LOOPBACK_NAMES | {name for name in named if name is not None}
        self._token = VisitorsToken(settings.token)

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a request that must not be served, else None."""
        if not self._host_is_ours(request):
            return self._refuse(request, 421, "host", "This name is not the kiosk's; open it by its own address.")
        if not self._origin_is_ours(request):
            return self._refuse(
                request, 403, "origin", "Another site's page may not use this kiosk; open the kiosk's own page."
            )
        if self._is_operator(request):
            return None
        if request.path in _OPERATORS_PATHS or (request.path == "/metrics" and self._settings.ticket_key is not None):
            return self._refuse(
                request, 401, "operator", "Only the kiosk's operator may ask for this, with RAP_SERVE_OPERATOR_TOKEN."
            )
        if request.path not in _OPEN_PATHS and not self._token_fits(request):
            return self._refuse(
                request, 401, "token", "This kiosk needs its token; open its address with ?token= and the token."
            )
        return None

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks whether a page of another origin may ask, if it may."""
        if request.method != "OPTIONS" or not self._is_named(request) or not self._host_is_ours(request):
            return None
        return web.Response(status=204, headers=_PREFLIGHT)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Signal handler that runs for every answer of the application."""
        set_headers(response)
        if self._is_named(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
            response.headers["Vary"] = "Origin"

    def _is_named(self, request: web.Request) -> bool:
        """Whether a page of one of the origins in the settings asks."""
        return request.headers.get("Origin", "").lower() in self._origins

    def welcome(self, request: web.Request) -> web.Response | None:
        """Turn a right token in the page's address into a cookie, so that it does not stay in the address bar."""
        if not self._token.needed or request.path != "/" or "token" not in request.query:
            return None
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(
            COOKIE, self._token.cookie, httponly=True, samesite="Strict", secure=self._settings.certificate is not None
        )
        return answer

    def _refuse(self, request: web.Request, status: int, reason: str, message: str) -> web.Response:
        self._metrics.refused.add(label=reason)
        return refusal(status, reason, message)

    def _host_is_ours(self, request: web.Request) -> bool:
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1:
            return False
        # A foreign name that resolves to this machine would make a foreign page same-origin.
        return not self._settings.loopback or (hosts != [] and host_name(hosts[0]) in self._names)

    def _origin_is_ours(self, request: web.Request) -> bool:
        if request.method in _SAFE_METHODS and request.headers.get("Upgrade", "").lower() != "websocket":
            return True
        origin = request.headers.get("Origin")
        if origin is None:
            # Browsers always send it here; other programs act for nobody but themselves.
            return True
        if self._is_named(request):
            return True
        # "null" and the like have no host.
        return origin_netloc(origin) == request.headers.get("Host", "").lower()

    def _is_operator(self, request: web.Request) -> bool:
        token = self._settings.operator_token
        return token is not None and equal(bearer(request), token)

    def _token_fits(self, request: web.Request) -> bool:
        asked = request.query.get("token", "") if request.path == "/" else ""
        return self._token.fits(bearer(request), request.cookies.get(COOKIE, ""), asked)


def middleware(guard: Guard) -> Middleware:
    """The guard as aiohttp takes it."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        # A response is a mapping too, which may be empty: its presence decides, not its truth.
        if (preflight := guard.preflight(request)) is not None:
            return preflight
        if (refused := guard.refusal(request)) is not None:
            return refused
        if (welcome := guard.welcome(request)) is not None:
            return welcome
        return await handler(request)

    return guarded


def bearer(request: web.Request) -> str:
    """What a program brings as `Authorization: Bearer`, or ""."""
    return bearer_of(request.headers.get("Authorization", ""))


def set_headers(response: web.StreamResponse) -> None:
    """Say what the browser may do with an answer."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    # aiohttp would name its version.
    response.headers["Server"] = "rap-serve"


def refusal(status: int, reason: str, message: str, **headers: str) -> web.Response:
    """An error as JSON: one word for programs and one sentence for people."""
    return web.json_response({"error": {"reason": reason, "message": message}}, status=status, headers=headers)
