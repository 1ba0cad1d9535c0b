"""What the dispatcher knows of a box, wherever it runs: what it says, and what it can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from .order import Order


class BoxLostError(Exception):
    """A box is certainly gone."""


@dataclass(frozen=True)
class Said:
    """A box's answer.

    Attributes:
        order: by which it was started.
        key: of its tickets.
        status: `rap-serve`'s status document; None while it is starting, or while it does not answer.
        ended: whether its `rap-serve` has ended.
        fault: the last thing that it said, where it ended in one.
    """

    order: Order
    key: str = field(repr=False)
    status: Mapping[str, Any] | None = None
    ended: bool = False
    fault: str = ""


class Box(Protocol):
    """A box that somebody else owns; every method raises `BoxLostError` when it is gone."""

    name: str

    async def said(self) -> Said:
        """Ask it."""

    async def get(self, path: str) -> tuple[int, str, bytes]:
        """What `rap-serve` answers to GET: status, content type, body."""

    async def drain(self, seconds: float) -> None:
        """Let it take nobody, and end when its visitors have left, or after `seconds`."""

    def end(self) -> None:
        """End it at once, with whoever is there."""


class Boxes(Protocol):
    """Where boxes come from."""

    def found(self, known: Set[str]) -> Sequence[Box]:
        """Those that are there and are not known by name; from any thread."""

    def start(self, order: Order) -> Box:
        """One more, which takes its time."""
