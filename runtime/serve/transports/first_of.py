"""The parts of one connection run side by side until the first of them, or the visit itself, is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ..visits.visit import End, Visit


async def first_of(visit: Visit, *parts: Coroutine[Any, Any, End]) -> End:
    """The reason of whatever ends first; the visit's own goes before the others'. The rest is cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait([visit.ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in (visit.ended, *tasks) if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
