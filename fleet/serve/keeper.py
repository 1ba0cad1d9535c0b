"""`Keeper`: as many boxes as are wanted, by the newest order: asks, starts, drains and replaces them.

What it knows it knows from the boxes, so that one that follows another goes on where that one was.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..placement import BoxStatus, Placement
from .boxes import Box, Boxes, BoxLostError, Said
from .order import Order
from .scale import Scale

_LOG = logging.getLogger(__name__)
# A box that says nothing for so long is not asked again before the next round.
_ANSWER_SECONDS = 3.0
_SILENT_SECONDS = 60.0
_SETTLING_SECONDS = 10.0
# A machine that has no room for a new box beside the old ones.
_ROOM_SECONDS = 60.0
_LONGEST_PAUSE, _DOUBLED = 60.0, 6
_MOST_GONE = 4096


@dataclass
class Known:
    """What is known of a box.

    Attributes:
        box: itself.
        started: when it was first heard of.
        said: its last answer; None before the first.
        draining: whether it was told to.
        up: whether it has ever taken visitors.
        heard: when it was asked for what it said last of itself.
        asking: a question that has not been answered, and when it was asked.
    """

    box: Box
    started: float
    said: Said | None = None
    draining: bool = False
    up: bool = False
    heard: float = -math.inf
    asking: tuple[asyncio.Task[Said], float] | None = None

    @property
    def status(self) -> dict[str, Any]:
        """Its last status document, or none."""
        return dict(self.said.status or {}) if self.said is not None else {}

    @property
    def taken(self) -> int:
        """Visitors there."""
        return int(self.status.get("taken", 0))


class Keeper:
    """Used from one event loop; times are of `clock`, in seconds."""

    def __init__(
        self, boxes: Boxes, order: Order, scale: Scale, placement: Placement, clock: Callable[[], float]
    ) -> None:
        """Know of no box before the first round."""
        self.order, self.placement = order, placement
        self.failure = ""
        self._boxes, self._scale, self._clock = boxes, scale, clock
        self.known: dict[str, Known] = {}
        # The last of those that are gone, whose names are heard of for a moment longer.
        self._gone: deque[str] = deque(maxlen=_MOST_GONE)
        self._failures, self._not_before = 0, -math.inf
        self._began = clock()

    async def round(self) -> None:
        """Ask every box, those too that another dispatcher has started, and do what has to be done."""
        for box in await asyncio.to_thread(self._boxes.found, frozenset({*self.known, *self._gone})):
            self.known[box.name] = Known(box, self._clock())
        await asyncio.gather(*(self.ask(known) for known in list(self.known.values())))
        now = self._clock()
        for known in list(self.known.values()):
            if known.up and now - known.heard > _SILENT_SECONDS:
                self._lose(known, "it does not answer")
        # What the boxes of an earlier dispatcher are is heard before anything is done about them.
        if now - self._began > _SETTLING_SECONDS or all(known.said is not None for known in self.known.values()):
            self._began = -math.inf
            await self._act(now)

    def change(self, bundle: str) -> None:
        """Let all boxes be of another bundle, one after the other."""
        self.order = replace(self.order, bundle=bundle, generation=self.order.generation + 1)
        self._failures, self._not_before, self.failure = 0, -math.inf, ""

    async def ask(self, known: Known, seconds: float = _ANSWER_SECONDS) -> None:
        """Hear what a box says of itself now; it is lost if it is certainly gone."""
        # A question that waits for its answer is not asked again, however many wait for it.
        asking, asked = known.asking or (asyncio.ensure_future(known.box.said()), self._clock())
        known.asking = asking, asked
        await asyncio.wait([asking], timeout=seconds)
        if not asking.done():
            return
        if known.asking is not None and known.asking[0] is asking:
            known.asking = None
        try:
            said = asking.result()
        except BoxLostError:
            self._lose(known, "")
            return
        if said.ended:
            self._lose(known, said.fault)
        else:
            # A box that is too busy to answer is as it said last, for as long as that is believed.
            if said.status is not None or not known.up:
                known.said = said
            if said.order.age > self.order.age:
                self.order = said.order
            if said.status is not None:
                self._hear(known, asked)

    def by_url(self, url: str) -> Known | None:
        """The box whose visitors come to `url`."""
        return next((known for known in self.known.values() if known.status.get("url") == url), None)

    def ready(self) -> list[Known]:
        """Boxes that take visitors, the newest order's before the others."""
        ready = [known for known in self.known.values() if known.up and not known.draining]
        return sorted(ready, key=lambda known: not self._is_current(known))

    def _hear(self, known: Known, asked: float) -> None:
        name, status = known.box.name, known.status
        known.heard = asked
        if not known.up:
            known.up = True
            self._failures, self.failure = 0, ""
            self.placement.join(name)
        draining = status["status"] != "ok"
        known.draining |= draining
        held = frozenset(status["held_tickets"])
        self.placement.heard(name, BoxStatus(status["places"], held, draining), asked)
        for ticket in set(status["spent_tickets"]) - held:
            self.placement.release(ticket, self._clock())

    def _lose(self, known: Known, fault: str) -> None:
        if self.known.pop(known.box.name, None) is None:
            return
        self._gone.append(known.box.name)
        self.placement.lost(known.box.name)
        known.box.end()
        if known.draining:
            return
        if not known.up:
            self._failures += 1
            self._not_before = self._clock() + min(_LONGEST_PAUSE, 2.0 ** min(self._failures, _DOUBLED))
            self.failure = fault or "A box ended before it took anybody; see Ray's log of it."
        _LOG.warning("A box is gone (%s); another one takes its place.", fault or "it says nothing any more")

    async def _act(self, now: float) -> None:
        staying = [known for known in self.known.values() if not known.draining]
        new = [known for known in staying if self._is_current(known)]
        old = [known for known in staying if not self._is_current(known)]
        ready = [known for known in new if known.up]
        starting = [known for known in new if not known.up]
        wanted = self._scale.wanted(self.placement.load(now), now)
        missing = wanted - len(staying)
        if missing > 0:
            self._start(missing, now)
        elif old and len(ready) + len(old) > wanted:
            await self._drain(old)
        elif old and not starting:
            self._start(1, now)
        elif old and len(staying) > wanted and now - starting[0].started > _ROOM_SECONDS:
            # Nothing says so sooner: the machines are full, and one box has to make room first.
            await self._drain(old)
        elif not old and not starting and len(ready) > wanted:
            await self._drain(ready)

    def _is_current(self, known: Known) -> bool:
        return known.said is None or self.order.asks_for(known.said.order)

    def _start(self, number: int, now: float) -> None:
        if now < self._not_before:
            return
        for _ in range(number):
            box = self._boxes.start(self.order)
            self.known[box.name] = Known(box, now)

    async def _drain(self, some: list[Known]) -> None:
        """Let the one with the fewest visitors go."""
        known = min(some, key=lambda known: known.taken)
        known.draining = True
        self.placement.drain(known.box.name)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await known.box.drain(self.order.drain)
        except (TimeoutError, BoxLostError):
            _LOG.warning("A box could not be told to drain; it is asked again.")
            known.draining = False
