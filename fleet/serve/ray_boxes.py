"""Boxes as Ray actors: each owns one `rap-serve`, and stays when the dispatcher that started it goes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Sequence, Set
from typing import Any

import ray

from .box_process import BoxProcess
from .boxes import Box, BoxLostError, Said
from .order import Order

_NAMESPACE = "rap-fleet"


class BoxActor:
    """An actor; `rap-serve` starts with the first question."""

    def __init__(self, order: Order) -> None:
        """Own a box of this order."""
        host = ray.util.get_node_ip_address() if order.host is None else order.host
        self._process = BoxProcess(order, host)
        self._life: asyncio.Task[None] | None = None

    async def said(self) -> Said:
        """See `Box.said`."""
        if self._life is None:
            self._life = asyncio.get_running_loop().create_task(self._process.run())
        return await self._process.said()

    async def get(self, path: str) -> tuple[int, str, bytes]:
        """See `Box.get`."""
        return await self._process.get(path)

    async def drain(self, seconds: float) -> None:
        """See `Box.drain`."""
        await self._process.drain(seconds)

    async def stop(self) -> None:
        """End it with a word to whoever is there."""
        await self._process.stop()


class RayBox:
    """A box by its actor's handle."""

    def __init__(self, name: str, actor: Any) -> None:
        """See `RayBoxes`."""
        self.name, self._actor = name, actor

    async def said(self) -> Said:
        """See `Box.said`."""
        with _told_when_lost():
            said: Said = await self._actor.said.remote()
        return said

    async def get(self, path: str) -> tuple[int, str, bytes]:
        """See `Box.get`."""
        with _told_when_lost():
            answer: tuple[int, str, bytes] = await self._actor.get.remote(path)
        return answer

    async def drain(self, seconds: float) -> None:
        """See `Box.drain`."""
        with _told_when_lost():
            await self._actor.drain.remote(seconds)

    def end(self) -> None:
        """See `Box.end`; `rap-serve` is told by its parent's death, and drains if anybody is there."""
        ray.kill(self._actor)


class RayBoxes:
    """Those of the cluster that this process is connected to."""

    def found(self, known: Set[str]) -> Sequence[Box]:
        """See `Boxes.found`."""
        named = ray.util.list_named_actors(all_namespaces=True)
        names = {entry["name"] for entry in named if entry["namespace"] == _NAMESPACE}
        found: list[Box] = []
        for name in sorted(names - known):
            # It may have ended since.
            with contextlib.suppress(ValueError):
                found.append(RayBox(name, ray.get_actor(name, _NAMESPACE)))
        return found

    def start(self, order: Order) -> Box:
        """See `Boxes.start`; the actor waits until a machine has room for it."""
        name = f"box-{secrets.token_hex(6)}"
        made = ray.remote(BoxActor).options(
            name=name,
            namespace=_NAMESPACE,
            lifetime="detached",
            num_cpus=order.cores or 1 if order.counted else 0,
            num_gpus=order.gpu_share,
        )
        return RayBox(name, made.remote(order))


def stop_all(seconds: float) -> None:
    """End every box of the cluster that this process is connected to, with a word to whoever is there."""
    boxes = RayBoxes().found(frozenset())
    if boxes:
        actors = [ray.get_actor(box.name, _NAMESPACE) for box in boxes]
        ray.wait([actor.stop.remote() for actor in actors], num_returns=len(actors), timeout=seconds)
    for box in boxes:
        box.end()


@contextlib.contextmanager
def _told_when_lost() -> Iterator[None]:
    try:
        yield
    except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
        raise BoxLostError(str(error)) from error
