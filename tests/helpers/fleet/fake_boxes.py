"""Boxes that only say what a test lets them say."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from rap_edge.fleet.serve.boxes import Box, BoxLostError, Said
from rap_edge.fleet.serve.order import Order

KEY = "the key of the tickets of this box"
PORTRAITS = [{"id": "p0", "name": "Ada"}, {"id": "p1", "name": "Bo"}]


@dataclass
class FakeBox:
    name: str
    order: Order
    up: bool = True
    gone: bool = False
    ended: bool = False
    fault: str = ""
    places: int = 2
    held: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)
    draining: bool = False
    was_ended: bool = False

    async def said(self) -> Said:
        if self.gone:
            raise BoxLostError
        return Said(self.order, KEY, self.status() if self.up else None, self.ended, self.fault)

    def status(self) -> dict[str, Any]:
        return {
            "status": "draining" if self.draining else "ok",
            "box": f"process of {self.name}",
            "url": f"http://{self.name}",
            "places": self.places,
            "taken": len(self.held),
            "held_tickets": sorted(self.held),
            "spent_tickets": sorted(self.spent),
            "portraits": PORTRAITS,
            "model": self.order.bundle,
            "rtf": 0.1,
            "precision": "fp32",
            "engine": "none",
            "device": "none",
        }

    async def get(self, path: str) -> tuple[int, str, bytes]:
        if path == "/api/kiosk":
            return 200, "application/json", json.dumps({"portraits": PORTRAITS, "sessions_max": self.places}).encode()
        return 200, "image/png", f"{self.order.bundle} {path}".encode()

    async def drain(self, seconds: float) -> None:
        self.draining = True

    def end(self) -> None:
        self.was_ended = True


class FakeBoxes:
    """Those that were started, and those that were there before."""

    def __init__(self, *before: FakeBox, up: bool = True) -> None:
        self.all: list[FakeBox] = list(before)
        self.up = up

    def found(self, known: Set[str]) -> Sequence[Box]:
        return [box for box in self.there if box.name not in known]

    def start(self, order: Order) -> Box:
        box = FakeBox(f"box-{len(self.all)}", order, up=self.up)
        self.all.append(box)
        return box

    @property
    def there(self) -> list[FakeBox]:
        return [box for box in self.all if not box.was_ended]
