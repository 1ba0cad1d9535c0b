"""Who may come in by the fleet's door, and what they are told; Ray only has to be installed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from helpers.fleet.fake_boxes import FakeBoxes

pytest.importorskip("ray", reason="Ray is not installed")

from starlette.requests import Request
from starlette.responses import Response

from rap_edge.fleet.serve import ingress
from rap_edge.fleet.serve.ingress import Door, Ingress
from rap_edge.fleet.serve.order import Order

TOKEN, OPERATOR = "a-token-of-enough-letters", "the-operators-own-token"
Ask = Callable[..., Awaitable[Response]]


@asynccontextmanager
async def door(monkeypatch: pytest.MonkeyPatch, **settings: str) -> AsyncIterator[Ask]:
    """What asks a fleet of two boxes that are up."""
    monkeypatch.setattr(ingress, "RayBoxes", FakeBoxes)
    told = {"host": "127.0.0.1", "origin": "http://127.0.0.1:8000", "operator_token": OPERATOR} | settings
    fleet = Ingress.__new__(Ingress)
    await fleet.__init__(Order("first"), 2, 2, Door(**told))

    async def ask(method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        path, _, query = path.partition("?")
        named = {"host": "127.0.0.1:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        }
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict:
            return next(parts)

        return await fleet(Request(scope, receive))

    try:
        async with asyncio.timeout(20):
            while (await ask("GET", "/healthz")).status_code != 200:
                await asyncio.sleep(0.05)
        yield ask
    finally:
        fleet._keeping.cancel()


def told(answer: Response) -> tuple[int, str]:
    error = json.loads(answer.body)["error"]
    assert error["message"].endswith(".")
    return answer.status_code, error["reason"]


def test_the_page_comes_locked_down_but_may_reach_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with door(monkeypatch) as ask:
            page = await ask("GET", "/")
            policy = page.headers["Content-Security-Policy"]
            assert b"<!doctype html>" in page.body
            assert "default-src 'none'; script-src 'self';" in policy
            assert "connect-src 'self' http: https: ws: wss:;" in policy
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            again = await ask("GET", "/", if_none_match=page.headers["ETag"])
            assert (again.status_code, again.body) == (304, b"")
            assert json.loads((await ask("GET", "/api/kiosk")).body)["dispatcher"] == "/sessions"
            picture = await ask("GET", "/api/portraits/p1")
            assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/png")
            assert told(await ask("GET", "/api/portraits/p9")) == (404, "no-portrait")
            for path in ("/etc/passwd", "/api/", "/page/app.js", "/api/portraits/../status"):
                assert (await ask("GET", path)).status_code == 404
            assert told(await ask("DELETE", "/sessions")) == (404, "not-found")

    asyncio.run(scenario())


def test_places_are_given_until_there_are_none_and_then_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with door(monkeypatch) as ask:
            answers = [await ask("POST", "/sessions", b'{"portrait": "p1"}') for _ in range(5)]
            assert [answer.status_code for answer in answers] == [201] * 4 + [503]
            assert set(json.loads(answers[0].body)) == {"url", "ticket", "portrait", "seconds"}
            assert told(answers[-1]) == (503, "full")
            assert int(answers[-1].headers["Retry-After"]) >= 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"x" * 5000, 400), (b'{"portrait": 1}', 400), (b'{"portrait": "p9"}', 404)],
)
def test_what_is_no_wish_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch, body: bytes, status: int) -> None:
    async def scenario() -> None:
        async with door(monkeypatch) as ask:
            assert told(await ask("POST", "/sessions", body))[0] == status

    asyncio.run(scenario())


def test_foreign_names_and_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with door(monkeypatch, origin="https://fleet.example") as ask:
            assert told(await ask("GET", "/", host="evil.example")) == (421, "host")
            assert told(await ask("POST", "/sessions", origin="https://evil.example")) == (403, "origin")
            assert told(await ask("POST", "/sessions", origin="null")) == (403, "origin")
            for headers in ({"origin": "https://fleet.example"}, {"host": "fleet.example"}, {}):
                assert (await ask("POST", "/sessions", **headers)).status_code == 201

    asyncio.run(scenario())


def test_only_the_operator_sees_the_boxes_and_changes_their_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with door(monkeypatch) as ask:
            for bearer in ("", "Bearer wrong", f"Basic {OPERATOR}", "Bearer \xff"):
                assert told(await ask("GET", "/api/fleet", authorization=bearer)) == (401, "operator")
                change = await ask("POST", "/api/fleet/bundle", b'{"bundle": "x"}', authorization=bearer)
                assert told(change) == (401, "operator")
            mine = {"authorization": f"Bearer {OPERATOR}"}
            assert len(json.loads((await ask("GET", "/api/fleet", **mine)).body)["boxes"]) == 2
            assert told(await ask("POST", "/api/fleet/bundle", b'{"bundle": 1}', **mine)) == (400, "bad-request")
            changed = await ask("POST", "/api/fleet/bundle", b'{"bundle": "second"}', **mine)
            assert (changed.status_code, json.loads(changed.body)["generation"]) == (202, 1)

    asyncio.run(scenario())


def test_a_token_opens_the_page_once_by_its_address_and_then_by_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with door(monkeypatch, host="0.0.0.0", token=TOKEN) as ask:
            for path in ("/", "/app.js", "/api/kiosk", "/?token=wrong"):
                assert told(await ask("GET", path)) == (401, "token")
            assert told(await ask("POST", "/sessions")) == (401, "token")
            welcome = await ask("GET", f"/?token={TOKEN}")
            assert (welcome.status_code, welcome.headers["Location"]) == (303, "/")
            cookie = welcome.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert TOKEN not in cookie
            assert (await ask("POST", "/sessions", cookie=cookie.partition(";")[0])).status_code == 201
            assert (await ask("POST", "/sessions", authorization=f"Bearer {TOKEN}")).status_code == 201

    asyncio.run(scenario())
