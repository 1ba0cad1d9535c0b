"""The parts of one connection run side by side until the first of them, or the client's seat itself, is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ..visits.seat import End, Seat


async def first_of(seat: Seat, *parts: Coroutine[Any, Any, End]) -> End:
    """The reason of whatever ends first; the seat's own goes before the others'. The rest is cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait([seat.ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in (seat.ended, *tasks) if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
