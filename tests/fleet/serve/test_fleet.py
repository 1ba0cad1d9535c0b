"""Visitors of a real fleet: real boxes and real Ray on this machine, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector
from helpers.bundles.tiny_bundle import write_png, write_tiny_bundle
from helpers.fleet.visitors import Fleet, Visitor, fleet_document, until_boxes, until_nothing_is_promised, visiting
from helpers.serving.browser import BROWSERS, open_page
from helpers.serving.live_page import LIVE, speech_and_silence, touch

pytest.importorskip("ray", reason="Ray is not installed")

# Of a box; the machine would measure more.
PLACES = 4
DRAIN = 6
# What must not be exceeded even where every core has other work; what was measured is printed.
GENEROUS = 60.0
Scenario = Callable[[ClientSession], Awaitable[None]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def fleet(bundle: Path) -> Iterator[Fleet]:
    with running(Fleet(bundle, 2, "--drain", DRAIN, "--", "--max-sessions", PLACES)) as fleet:
        yield fleet


@contextlib.contextmanager
def running(fleet: Fleet) -> Iterator[Fleet]:
    try:
        fleet.wait_until_open()
        yield fleet
        assert "Traceback" not in fleet.end()
    finally:
        fleet.process.kill()


@pytest.fixture
def run(fleet: Fleet) -> Callable[[Scenario], None]:
    """Runs a scenario over two empty boxes."""
    return partial(run_over, fleet)


def run_over(fleet: Fleet, scenario: Scenario) -> None:
    async def between() -> None:
        async with ClientSession(timeout=ClientTimeout(total=GENEROUS), connector=TCPConnector(limit=0)) as client:
            await until_boxes(client, fleet, status="ok", taken=0)
            await until_nothing_is_promised(client, fleet)
            await scenario(client)

    asyncio.run(asyncio.wait_for(between(), 300))


def measured(what: str, seconds: float) -> None:
    print(f"\n{what}: {seconds:.2f} s (load {os.getloadavg()[0]:.1f})")
    assert seconds < GENEROUS


def box_of(visitor: Visitor) -> str:
    return visitor.places[-1][0]


def test_visitors_are_placed_by_the_places_that_are_free_and_a_full_house_says_when_to_come_again(
    fleet: Fleet, run
) -> None:
    async def scenario(client: ClientSession) -> None:
        async with visiting(client, fleet, 4) as visitors:
            assert sorted(Counter(map(box_of, visitors)).values()) == [2, 2]
            async with visiting(client, fleet, 4):
                answer = await client.post(f"{fleet.url}/sessions")
                assert answer.status == 503
                assert (await answer.json())["error"]["reason"] == "full"
                assert 1 <= int(answer.headers["Retry-After"]) <= 60

    run(scenario)


def test_visitors_of_a_box_that_is_killed_talk_again_elsewhere_and_nobody_else_notices(fleet: Fleet, run) -> None:
    async def scenario(client: ClientSession) -> None:
        async with visiting(client, fleet, 4) as visitors:
            gone = box_of(visitors[0])
            boxes = fleet.boxes()
            victim = next(pid for pid in boxes if listens(pid, gone))
            others = [visitor for visitor in visitors if box_of(visitor) != gone]
            moved = [visitor for visitor in visitors if box_of(visitor) == gone]
            assert len(moved) == len(others) == 2
            before = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            measured("seen again", max([await visitor.until("frames", before + 0.2) for visitor in moved]) - before)
            measured("heard again", max([await visitor.until("heard", before) for visitor in moved]) - before)
            assert {box_of(visitor) for visitor in visitors} == {box_of(others[0])}
            measured("longest gap of the others", max(visitor.longest_gap(before) for visitor in others))
            assert all(len(visitor.places) == 1 for visitor in others)
            await until_boxes(client, fleet, status="ok")
            measured("another box in its place", time.monotonic() - before)

    run(scenario)


def test_a_box_that_is_told_to_go_lets_its_visitors_finish_and_sends_the_others_on(fleet: Fleet, run) -> None:
    async def scenario(client: ClientSession) -> None:
        async with visiting(client, fleet, 4) as visitors:
            going = box_of(visitors[0])
            leaver, staying = [visitor for visitor in visitors if box_of(visitor) == going]
            others = [visitor for visitor in visitors if box_of(visitor) != going]
            os.kill(next(pid for pid in fleet.boxes() if listens(pid, going)), signal.SIGTERM)
            leaver.leaving = True
            await until(lambda: leaver.ends and staying.ends)
            assert [end["reason"] for end in leaver.ends] == ["finished"]
            assert [end["reason"] for end in staying.ends] == ["reconnect"]
            await until(lambda: len(staying.places) == 2)
            await staying.until("heard", staying.places[1][1])
            assert box_of(staying) != going
            assert not any(visitor.ends for visitor in others)
        boxes = await until_boxes(client, fleet, status="ok")
        assert going not in [box["url"] for box in boxes]

    run(scenario)


def test_another_bundle_comes_box_by_box_and_cuts_nobody_off(fleet: Fleet, run, tmp_path: Path, bundle: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other")

    async def scenario(client: ClientSession) -> None:
        before = await fleet_document(client, fleet)
        generation = before["generation"] + 1
        old = {box["url"] for box in before["boxes"]}
        async with visiting(client, fleet, 3) as visitors:
            began = time.monotonic()
            await asyncio.to_thread(fleet.update, other)
            boxes = await until_boxes(client, fleet, status="ok", generation=generation)
            measured("two boxes changed", time.monotonic() - began)
            assert not {box["url"] for box in boxes} & old
            for visitor in visitors:
                await visitor.until("heard", visitor.places[-1][1])
                # Whose time ran out was told so, and kept what they had.
                assert [end["reason"] for end in visitor.ends] == ["reconnect"] * (len(visitor.places) - 1)
                assert {(end["portrait"], end["seed"]) for end in visitor.ends} == {("p0", visitor.seed)}
                assert box_of(visitor) not in old
            measured("longest gap", max(visitor.longest_gap(began) for visitor in visitors))
        assert (await fleet_document(client, fleet))["bundle"] == str(other)

    run(scenario)
    fleet.update(bundle)


def test_a_dispatcher_that_is_killed_cuts_nobody_off_and_the_next_one_knows_who_is_there(fleet: Fleet, run) -> None:
    async def scenario(client: ClientSession) -> None:
        async with visiting(client, fleet, 3) as visitors:
            await asyncio.sleep(1.5)
            document = await fleet_document(client, fleet)
            before = time.monotonic()
            os.kill(fleet.dispatcher(), signal.SIGKILL)
            tickets = 0
            while not tickets:
                async with client.post(f"{fleet.url}/sessions") as answer:
                    tickets = int(answer.status == 201)
                await asyncio.sleep(0.1)
            measured("tickets again", time.monotonic() - before)
            boxes = await until_boxes(client, fleet, status="ok")
            assert {box["url"] for box in boxes} == {box["url"] for box in document["boxes"]}
            assert (await fleet_document(client, fleet))["generation"] == document["generation"]
            # Three are there, and one has just been promised.
            more = [await client.post(f"{fleet.url}/sessions") for _ in range(2 * PLACES)]
            assert Counter(answer.status for answer in more) == {201: 2 * PLACES - 4, 503: 4}
            assert all(len(visitor.places) == 1 for visitor in visitors)
            measured("longest gap", max(visitor.longest_gap(before) for visitor in visitors))

    run(scenario)


@pytest.mark.skipif(BROWSERS["chromium"] is None, reason="chromium is not installed")
def test_the_page_talks_to_a_box_and_goes_on_at_another_one_with_the_visitors_own_picture(
    fleet: Fleet, run, tmp_path: Path
) -> None:
    async def scenario(client: ClientSession) -> None:
        sound = speech_and_silence(tmp_path / "microphone.wav")
        async with open_page(fleet.url, tmp_path / "profile", "chromium", microphone=sound) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            face = write_png(tmp_path / "face.png", np.full((80, 80, 3), 200, np.uint8))
            await page.choose_file("#file", face)
            await page.until("document.querySelectorAll('.face[role=radio]').length === 2")
            await touch(page, "start")
            await page.until(LIVE, GENEROUS)
            assert await page.js("!!document.getElementById('video').srcObject"), "by WebRTC"
            await page.until("document.getElementById('latency').innerText.endsWith(' s')")
            (here,) = [box["url"] for box in (await fleet_document(client, fleet))["boxes"] if box.get("taken")]
            before = time.monotonic()
            os.kill(next(pid for pid in fleet.boxes() if listens(pid, here)), signal.SIGKILL)
            await page.until("document.body.dataset.state !== 'live'", GENEROUS)
            measured("the page has noticed", time.monotonic() - before)
            await page.until(LIVE, GENEROUS)
            measured("the page is live again", time.monotonic() - before)
            assert await page.js("document.querySelectorAll('.face[role=radio]')[1].ariaChecked") == "true"
            boxes = await until_boxes(client, fleet, status="ok")
            assert [box["url"] for box in boxes if box["taken"]] != [here]
            await touch(page, "stop")
            await page.until("document.body.dataset.state === 'ready'")

    run(scenario)


def test_ten_thousand_reservations_in_a_burst_are_never_more_than_there_are_places(fleet: Fleet, run) -> None:
    async def scenario(client: ClientSession) -> None:
        gate = asyncio.Semaphore(128)
        places: list[dict] = []

        async def ask() -> int:
            async with gate, client.post(f"{fleet.url}/sessions") as answer:
                if answer.status == 201:
                    places.append(await answer.json())
                else:
                    assert int(answer.headers["Retry-After"]) >= 1
                return answer.status

        began = time.monotonic()
        burst = asyncio.gather(*(ask() for _ in range(10_000)))
        statuses = Counter(await burst)
        seconds = time.monotonic() - began
        print(f"\n{10_000 / seconds:.0f} reservations a second (load {os.getloadavg()[0]:.1f}): {dict(statuses)}")
        # A ticket that nobody used is given to another after half a minute.
        assert statuses[201] <= 2 * PLACES * (1 + int(seconds / 30))
        assert statuses[201] >= 2 * PLACES
        assert statuses[201] + statuses[503] == 10_000

    run(scenario)


def test_in_a_full_house_of_three_boxes_the_visitors_of_a_dead_one_wait_for_the_next(bundle: Path) -> None:
    with running(Fleet(bundle, 3, "--", "--max-sessions", 1)) as fleet:

        async def scenario(client: ClientSession) -> None:
            async with visiting(client, fleet, 3) as visitors:
                first, *others = visitors
                assert len(set(map(box_of, visitors))) == 3
                before = time.monotonic()
                os.kill(next(pid for pid in fleet.boxes() if listens(pid, box_of(first))), signal.SIGKILL)
                await until(lambda: len(first.places) == 2)
                measured("heard again at a box that is new", await first.until("heard", first.places[1][1]) - before)
                assert len(set(map(box_of, visitors))) == 3
                assert not any(visitor.ends for visitor in others)

        run_over(fleet, scenario)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(GENEROUS):
        while not true():
            await asyncio.sleep(0.05)


def test_a_fleet_that_is_stopped_together_with_its_ray_ends_well(bundle: Path) -> None:
    fleet = Fleet(bundle, 1)
    try:
        fleet.wait_until_open()
        assert "Traceback" not in fleet.end_with_ray()
    finally:
        fleet.process.kill()


def listens(pid: int, url: str) -> bool:
    """Whether a process waits at the address of a box."""
    port = f"{int(url.rpartition(':')[2]):04X}"
    inodes = {line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:] if port in line}
    files = Path(f"/proc/{pid}/fd").iterdir()
    return any(os.readlink(file) in {f"socket:[{inode}]" for inode in inodes} for file in files)
