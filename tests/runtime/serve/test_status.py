"""A kiosk as a box of a fleet: its status, its operator, tickets at every door, and draining."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientResponse, ClientWebSocketResponse
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.serving.kiosk_client import Client, good_offer, listen, run, served, start

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.serve.kiosk import Kiosk
from rap_edge.runtime.serve.tickets import OWN_PORTRAIT, Ticket, check_key, sign

KEY = "a key that only box and dispatcher know"
OPERATOR = "the-operators-own-token"
BEARER = {"Authorization": f"Bearer {OPERATOR}"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@contextlib.asynccontextmanager
async def box(bundle: Path, **settings: object) -> AsyncIterator[tuple[Client, Kiosk]]:
    """A kiosk that takes tickets alone."""
    async with served(bundle, **{"ticket_key": KEY, "operator_token": OPERATOR} | settings) as (client, kiosk):
        yield client, kiosk


def ticket_for(kiosk: Kiosk, name: str = "one", portrait: str = "p0", seconds: float = 30) -> str:
    return sign(Ticket(name, kiosk.box, portrait, round(time.time() + seconds)), check_key(KEY))


async def refused(answer: ClientResponse) -> tuple[int, str]:
    error = (await answer.json())["error"]
    assert error["message"].endswith(".")
    return answer.status, error["reason"]


async def status(client: Client) -> dict:
    return await (await client.get("/api/status", headers=BEARER)).json()


async def told_to_go(socket: ClientWebSocketResponse) -> tuple[dict, int | None]:
    _, texts = await listen(socket)
    return texts[-1], socket.close_code


def test_the_status_says_what_a_dispatcher_must_know(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle, public_url="https://box1.example/") as (client, kiosk):
            async with client.ws_connect("/api/stream") as socket:
                await start(socket, ticket=ticket_for(kiosk))
                said = await status(client)
            avatar = kiosk.portraits.find(None).avatar
            assert said == {
                "status": "ok",
                "box": kiosk.box,
                "url": "https://box1.example",
                "places": 2,
                "taken": 1,
                "held_tickets": ["one"],
                "spent_tickets": ["one"],
                "rtf": 0.1,
                "precision": "fp32",
                "model": kiosk.model,
                "engine": avatar.engine,
                "device": avatar.device,
                "portraits": [{"id": "p0", "name": "Built in"}],
            }
        async with box(bundle) as (client, _):
            assert (await status(client))["url"] == f"http://127.0.0.1:{client.port}"

    run(scenario)


def test_the_models_hash_is_of_all_its_files(bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert manifest.sha256() == Bundle.open(bundle).manifest.sha256()
    text = manifest.to_json()
    digest = manifest.files["dit.onnx"].sha256
    other = type(manifest).from_json(text.replace(digest, "0" * 64))
    assert other.sha256() != manifest.sha256()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {OPERATOR}"}])
def test_only_the_operator_asks_for_status_metrics_and_draining(bundle: Path, headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk):
            assert (await client.get("/metrics", headers=BEARER)).status == 200
            for path in ("/api/status", "/metrics"):
                assert await refused(await client.get(path, headers=headers)) == (401, "operator")
            assert await refused(await client.post("/api/drain", headers=headers)) == (401, "operator")
            assert not kiosk.draining
        # Where there is no operator nobody is one, and visitors see the metrics as ever.
        async with served(bundle) as (client, kiosk):
            assert await refused(await client.get("/api/status", headers=headers)) == (401, "operator")
            assert (await client.get("/metrics", headers=headers)).status == 200

    run(scenario)


def test_with_tickets_nobody_gets_in_without_one_by_any_door(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk):
            offer = {"sdp": await good_offer()}
            for answer in (
                await client.post("/api/webrtc", json=offer),
                await client.post("/api/sessions"),
                await client.post("/api/portraits", data=b"picture"),
                await client.get("/api/ice-servers"),
            ):
                assert await refused(answer) == (403, "ticket")
            async with client.ws_connect("/api/stream") as socket:
                assert (await start(socket))["reason"] == "ticket"
                assert (await socket.receive()).data == socket.close_code == 1008
            assert kiosk.admission.taken == 0
            assert (await client.get("/")).status == (await client.get("/api/kiosk")).status == 200

    run(scenario)


def test_a_ticket_opens_every_door_once(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk):
            ticket = ticket_for(kiosk)
            for _ in range(2):
                answer = await client.get("/api/ice-servers", headers={"Authorization": f"Bearer {ticket}"})
                assert answer.status == 200
            answer = await client.post("/api/webrtc", json={"sdp": await good_offer(), "ticket": ticket})
            assert answer.status == 200
            await client.delete(f"/api/webrtc/{(await answer.json())['session']}")
            answer = await client.post("/api/webrtc", json={"sdp": await good_offer(), "ticket": ticket})
            assert await refused(answer) == (403, "ticket")
            made = await client.post("/api/sessions", json={"ticket": ticket_for(kiosk, "two"), "portrait": "p0"})
            assert made.status == 201
            async with client.ws_connect("/api/stream") as socket:
                assert (await start(socket, ticket=ticket_for(kiosk, "three"), seed=7))["type"] == "ready"
                (said,) = [visit.seed for visit in kiosk.visits.values() if visit.transport == "websocket"]
                assert said == 7

    run(scenario)


def test_a_hundred_copies_of_a_ticket_at_the_same_time_give_one_place(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle, max_sessions=5) as (client, kiosk):
            ticket = ticket_for(kiosk)
            answers = await asyncio.gather(
                *(client.post("/api/sessions", json={"ticket": ticket}) for _ in range(100)),
            )
            assert sorted(answer.status for answer in answers) == [201] + [403] * 99
            assert kiosk.admission.taken == 1

    run(scenario)


def test_a_ticket_is_not_used_up_where_the_house_is_full(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle, max_sessions=1) as (client, kiosk):
            async with client.ws_connect("/api/stream") as first:
                await start(first, ticket=ticket_for(kiosk))
                answer = await client.post("/api/sessions", json={"ticket": ticket_for(kiosk, "two")})
                assert await refused(answer) == (503, "full")
                await first.send_str('{"type": "finish"}')
                await listen(first)
            answer = await client.post("/api/sessions", json={"ticket": ticket_for(kiosk, "two")})
            assert answer.status == 201

    run(scenario)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"box": "another"}, "another box"),
        ({"expires": 1}, "expired"),
        ({"portrait": "p1"}, "another portrait"),
        ({"portrait": OWN_PORTRAIT}, "another portrait"),
    ],
)
def test_a_ticket_for_something_else_is_refused_with_a_sentence(
    bundle: Path, how: dict[str, object], words: str
) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk):
            fields = {"id": "one", "box": kiosk.box, "portrait": "p0", "expires": round(time.time()) + 30} | how
            wish = {"portrait": "p0", "ticket": sign(Ticket(**fields), check_key(KEY))}
            answer = await client.post("/api/sessions", json=wish)
            assert answer.status == 403
            assert words in (await answer.json())["error"]["message"]

    run(scenario)


@pytest.mark.parametrize(
    "fields", [{"seed": -1}, {"seed": 1 << 63}, {"seed": "1"}, {"ticket": 5}, {"ticket": "x" * 2000}]
)
def test_a_wish_that_cannot_be_is_refused(bundle: Path, fields: dict[str, object]) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, _):
            assert await refused(await client.post("/api/sessions", json=fields)) == (400, "bad-request")

    run(scenario)


def test_a_drained_kiosk_takes_nobody_new_and_is_over_when_the_last_visitor_leaves(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk), client.ws_connect("/api/stream") as guest:
            await start(guest, ticket=ticket_for(kiosk))
            answer = await client.post("/api/drain", headers=BEARER, json={"seconds": 60})
            assert (answer.status, await answer.json()) == (202, {"status": "draining", "taken": 1})
            health = await client.get("/healthz")
            assert (health.status, (await health.json())["status"]) == (503, "draining")
            assert (await status(client))["status"] == "draining"
            answer = await client.post("/api/sessions", json={"ticket": ticket_for(kiosk, "two")})
            assert await refused(answer) == (503, "reconnect")
            assert answer.headers["Retry-After"]
            async with client.ws_connect("/api/stream") as late:
                assert (await start(late, ticket=ticket_for(kiosk, "two")))["reason"] == "reconnect"
                assert (await late.receive()).data == 1012
            assert not kiosk.over.is_set()
            await guest.send_bytes(bytes(16000))
            await guest.send_str('{"type": "finish"}')
            end, code = await told_to_go(guest)
            assert (end["reason"], code) == ("finished", 1000)
            await asyncio.wait_for(kiosk.over.wait(), 10)

    run(scenario)


def test_whose_time_runs_out_is_sent_elsewhere_with_their_portrait_and_seed(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk), client.ws_connect("/api/stream") as guest:
            await start(guest, ticket=ticket_for(kiosk), seed=11)
            assert (await client.post("/api/drain", headers=BEARER, json={"seconds": 0.3})).status == 202
            end, code = await told_to_go(guest)
            assert code == 1012
            assert (end["type"], end["reason"], end["portrait"], end["seed"]) == ("end", "reconnect", "p0", 11)
            await asyncio.wait_for(kiosk.over.wait(), 10)

    run(scenario)


@pytest.mark.parametrize("body", [{"seconds": -1}, {"seconds": "1"}, {"seconds": 1e9}, []])
def test_draining_for_a_time_that_is_none_is_refused(bundle: Path, body: object) -> None:
    async def scenario() -> None:
        async with box(bundle) as (client, kiosk):
            answer = await client.post("/api/drain", headers=BEARER, data=json.dumps(body))
            assert await refused(answer) == (400, "bad-request")
            assert not kiosk.draining

    run(scenario)


def test_pages_of_a_dispatchers_origin_may_ask_and_read_the_answers_and_no_others_may(bundle: Path) -> None:
    async def scenario() -> None:
        async with box(bundle, origins=("https://fleet.example",)) as (client, kiosk):
            theirs = {"Origin": "https://fleet.example"}
            for path in ("/api/webrtc", "/api/portraits"):
                answer = await client.options(path, headers=theirs | {"Access-Control-Request-Method": "POST"})
                assert answer.status == 204
                assert answer.headers["Access-Control-Allow-Origin"] == "https://fleet.example"
                assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
            answer = await client.post("/api/sessions", headers=theirs, json={"ticket": ticket_for(kiosk)})
            assert answer.status == 201
            assert answer.headers["Access-Control-Allow-Origin"] == "https://fleet.example"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            strange = {"Origin": "https://evil.example"}
            answer = await client.options("/api/webrtc", headers=strange)
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Access-Control-Allow-Origin" not in (await client.get("/healthz", headers=strange)).headers

    run(scenario)
