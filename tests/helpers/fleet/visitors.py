"""A fleet as an operator starts it, and visitors who come back by themselves, as docs/serve.md tells programs to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType
from helpers.fleet.processes import command, descendants, named

OPERATOR = "the-operators-own-token"
_RATE, _BLOCK_SECONDS = 16000, 0.2
_NOISE = (np.random.default_rng(0).uniform(-0.3, 0.3, round(_RATE * _BLOCK_SECONDS)) * 32767).astype("<i2").tobytes()
PATIENCE = 120.0


class Fleet:
    """`rap-fleet serve` in a process of its own."""

    def __init__(self, bundle: Path, number: int, *words: object) -> None:
        self.number = number
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        told = ["-m", "rap_edge.fleet.cli", "serve", "--bundle", bundle, "--port", port, "--boxes", number, *words]
        self._environment = {**os.environ, "RAP_FLEET_OPERATOR_TOKEN": OPERATOR}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, told)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            process_group=0,
        )

    def wait_until_open(self) -> None:
        """Until visitors may come."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert b"open" in line, self.process.communicate()

    def boxes(self) -> set[int]:
        """Process ids of every `rap-serve`."""
        return named(descendants(self.process.pid), "rap_edge.fleet.serve.child")

    def dispatcher(self) -> int:
        """Its process id."""
        (pid,) = named(descendants(self.process.pid), "ServeReplica:rap-fleet:dispatcher")
        return pid

    def update(self, bundle: Path) -> None:
        """Change the bundle as an operator does."""
        words = [sys.executable, "-m", "rap_edge.fleet.cli", "update", "--bundle", str(bundle), "--at", self.url]
        subprocess.run(words, check=True, env=self._environment, stdout=subprocess.DEVNULL, timeout=PATIENCE)

    def end(self) -> str:
        """Stop it as an operator does; returns what it complained of."""
        return self._ended(lambda: self.process.send_signal(signal.SIGTERM))

    def end_with_ray(self) -> str:
        """The same by a signal to Ray's processes, too, as systemd does."""
        return self._ended(lambda: os.killpg(self.process.pid, signal.SIGTERM))

    def _ended(self, stop: Callable[[], None]) -> str:
        everybody = descendants(self.process.pid)
        stop()
        _, said = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, said
        left = {pid for pid in everybody if "fleet.serve.child" in command(pid)}
        assert not left, left
        return said.decode()


async def fleet_document(client: ClientSession, fleet: Fleet) -> dict[str, Any]:
    """What the operator is told of all boxes."""
    async with client.get(f"{fleet.url}/api/fleet", headers={"Authorization": f"Bearer {OPERATOR}"}) as answer:
        answer.raise_for_status()
        document: dict[str, Any] = await answer.json()
        return document


async def until_boxes(client: ClientSession, fleet: Fleet, **wanted: Any) -> list[dict[str, Any]]:
    """Wait until all boxes are there with these entries, of the newest order, and no other."""
    document: dict[str, Any] = {"boxes": []}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(ClientError):
                    document = await fleet_document(client, fleet)
                boxes: list[dict[str, Any]] = document["boxes"]
                all_wanted = wanted | {"generation": document.get("generation")}
                if len(boxes) == fleet.number and all(all_wanted.items() <= box.items() for box in boxes):
                    return boxes
                await asyncio.sleep(0.2)
    raise AssertionError(document)


async def until_nothing_is_promised(client: ClientSession, fleet: Fleet) -> None:
    """Wait until every ticket has been used or has expired, and nobody is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with client.get(f"{fleet.url}/healthz") as answer:
                if (await answer.json())["sessions"] == 0:
                    return
            await asyncio.sleep(0.5)


class Visitor:
    """Speaks all the time, and goes wherever the fleet sends them.

    Attributes:
        places: the address of every box where they were let in, and when.
        frames: when frames came.
        heard: when an utterance of theirs was begun to be shown.
        ends: the reasons for which connections ended, "lost" without one.
    """

    def __init__(self, client: ClientSession, fleet: Fleet, seed: int = 0) -> None:
        self._client, self._fleet, self.seed = client, fleet, seed
        self.places: list[tuple[str, float]] = []
        self.frames: list[float] = []
        self.heard: list[float] = []
        self.ends: list[dict[str, Any]] = []
        self.ready: list[dict[str, Any]] = []
        self.leaving = False

    async def stay(self) -> None:
        """Until `leaving`."""
        lost = None
        while not self.leaving:
            try:
                async with self._client.post(f"{self._fleet.url}/sessions", json={"lost": lost}) as answer:
                    place = await answer.json() if answer.status == 201 else None
                lost = None
                if place is not None:
                    lost = await self._talk(place)
            except (ClientError, ValueError):
                lost = place["url"] if place is not None else None
            await asyncio.sleep(0.0 if self.leaving else 0.1)

    async def _talk(self, place: dict[str, Any]) -> str | None:
        async with self._client.ws_connect(f"{place['url']}/api/stream".replace("http", "ws", 1)) as face:
            first = {"type": "start", "rate": _RATE, "ticket": place["ticket"], "seed": self.seed}
            await face.send_str(json.dumps(first))
            speaking = asyncio.ensure_future(self._speak(face))
            end: dict[str, Any] = {"reason": "lost"}
            try:
                async for message in face:
                    if message.type is WSMsgType.BINARY:
                        self.frames.append(time.monotonic())
                        continue
                    told = json.loads(message.data)
                    if told["type"] == "ready":
                        self.places.append((place["url"], time.monotonic()))
                    elif told["type"] == "utterance" and told["event"] == "started":
                        self.heard.append(time.monotonic())
                    elif told["type"] in ("end", "error"):
                        end = told
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
            self.ends.append(end)
            return place["url"] if end["reason"] == "lost" else None

    async def _speak(self, face: ClientWebSocketResponse) -> None:
        while not self.leaving:
            await face.send_bytes(_NOISE)
            await asyncio.sleep(_BLOCK_SECONDS)
        await face.send_str('{"type": "finish"}')

    async def until(self, what: str, after: float = 0.0) -> float:
        """Wait until something of `heard` or `frames` is later than `after`; returns when it was."""
        async with asyncio.timeout(PATIENCE):
            while not (late := [at for at in getattr(self, what) if at > after]):
                await asyncio.sleep(0.02)
        return late[0]

    def longest_gap(self, after: float) -> float:
        """Seconds between two frames, at most, from `after` on."""
        times = [after, *(at for at in self.frames if at > after)]
        return max(later - sooner for sooner, later in itertools.pairwise(times))


@contextlib.asynccontextmanager
async def visiting(client: ClientSession, fleet: Fleet, number: int) -> AsyncIterator[list[Visitor]]:
    """So many visitors, who are there and heard; in the end they leave."""
    visitors = [Visitor(client, fleet, seed) for seed in range(number)]
    staying = [asyncio.ensure_future(visitor.stay()) for visitor in visitors]
    try:
        for visitor in visitors:
            await visitor.until("heard")
        yield visitors
        for visitor in visitors:
            visitor.leaving = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*staying)
    finally:
        for task in staying:
            task.cancel()
        await asyncio.gather(*staying, return_exceptions=True)
