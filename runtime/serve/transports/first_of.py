"""The parts of one connection run side by side until the first of them is over, or the client has to go."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ..visits.seat import End


async def first_of(ended: asyncio.Future[End], *parts: Coroutine[Any, Any, End]) -> End:
    """The reason of whatever ends first; `ended` goes before the others. The rest is cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in (ended, *tasks) if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
