"""Local clients at a Unix socket: who is here, and how many may wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..kiosk import Kiosk
from ..visits.seat import End
from ..visits.visit import STOPPING
from .address import socket_at
from .guest import LIMIT, Guest

# Connections beside those that have a place.
_MOST_WAITING = 32
_CROWDED = End("full", "Too many programs are connecting; try again in a moment.")


@contextlib.asynccontextmanager
async def listening_at(path: Path, kiosk: Kiosk) -> AsyncIterator[None]:
    """Serve local clients at a Unix socket during the block; then tell them that it is over.

    Raises:
        ServeError: the path cannot be used.
    """
    guests: dict[asyncio.Task[None], Guest] = {}
    places, stopping = kiosk.admission.places, False
    with socket_at(path) as listener, ThreadPoolExecutor(places, "local frames") as frames:

        async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            guest, task = Guest(kiosk, reader, writer), asyncio.current_task()
            assert task is not None
            guests[task] = guest
            if stopping:
                guest.end(STOPPING)
            elif len(guests) > places + _MOST_WAITING:
                guest.end(_CROWDED)
            try:
                await guest.stay(frames)
            finally:
                del guests[task]

        server = await asyncio.start_unix_server(welcome, sock=listener, limit=LIMIT)
        try:
            yield
        finally:
            server.close()
            stopping = True
            for guest in guests.values():
                guest.end(STOPPING)
            if guests:
                await asyncio.wait(list(guests))
