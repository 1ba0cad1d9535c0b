"""Sessions that a program makes and feeds over plain HTTP; it may as well stay connected by WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from .http.body import BodyTooLargeError, read_body
from .kiosk import KIOSK
from .transports.protocol import MAX_TEXT, decode_pcm, parse_object, parse_sound, parse_wish
from .visits.fed import FED_OVER, FedVisit
from .visits.visit import MOST_SECONDS

MAX_SOUND = 8 << 20
TOKEN_HEADER = "X-Session-Token"


def add_sessions(app: web.Application) -> None:
    """Route everything a feeder may ask for."""
    app.router.add_post("/api/sessions", _make)
    app.router.add_get("/api/sessions/{session}", _news)
    app.router.add_delete("/api/sessions/{session}", _end)
    app.router.add_post("/api/sessions/{session}/sound", _sound)
    app.router.add_post("/api/sessions/{session}/end_utterance", _asked(FedVisit.end_utterance))
    app.router.add_post("/api/sessions/{session}/finish", _asked(FedVisit.finish))
    app.router.add_post("/api/sessions/{session}/interrupt", _interrupt)


async def _make(request: web.Request) -> web.Response:
    body = await read_body(request, MAX_TEXT)
    fed = await request.app[KIOSK].open_session(parse_wish(parse_object(body) if body else {}))
    session = fed.visit.id
    answer = {
        "session": session,
        "feed_token": fed.feed_token,
        "watch_token": fed.watch_token,
        # Behind the # no browser sends it to a server, whose log would keep it.
        "page": f"/#session={session}&token={fed.watch_token}&portrait={fed.visit.portrait.id}",
    }
    return web.json_response(answer, status=201)


async def _news(request: web.Request) -> web.Response:
    return _answer(_fed(request))


async def _end(request: web.Request) -> web.Response:
    fed = _fed(request)
    fed.visit.end(FED_OVER)
    return web.Response(status=204)


async def _sound(request: web.Request) -> web.Response:
    fed = _fed(request)
    rate = request.query.get("rate", "")
    known = int(rate) if rate.isdecimal() and len(rate) < 8 else rate
    sound = parse_sound({"rate": known, "format": request.query.get("format", "s16le")})
    fed.require_room()
    pcm = decode_pcm(await read_body(request, MAX_SOUND), sound.format)
    if pcm.size > MOST_SECONDS * sound.rate:
        raise BodyTooLargeError(f"There are more than {MOST_SECONDS:g} s of sound in the request; send less at a time.")
    await fed.say(pcm, sound.rate)
    return _answer(fed)


async def _interrupt(request: web.Request) -> web.Response:
    fed = _fed(request)
    return _answer(fed, played_ms=round(fed.interrupt()))


def _asked(verb: Callable[[FedVisit], None]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answered(request: web.Request) -> web.Response:
        fed = _fed(request)
        verb(fed)
        return _answer(fed)

    return answered


def _fed(request: web.Request) -> FedVisit:
    """The session that a request names and may feed; raises `UnknownSessionError`."""
    fed = request.app[KIOSK].fed_visit(request.match_info["session"])
    fed.feed_once(request.headers.get(TOKEN_HEADER, ""))
    return fed


def _answer(fed: FedVisit, **more: object) -> web.Response:
    state = {
        "unplayed_seconds": round(fed.visit.unplayed_seconds, 3),
        "watched": fed.watched,
        "events": list(fed.news()),
    }
    return web.json_response(state | more)
