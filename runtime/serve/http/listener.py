"""Takes connections, from the first packet on: what asyncio's own server takes, nobody can count before TLS is done."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from ..metrics import Metrics
from .connection import HttpConnection
from .crowd import Crowd

_LOG = logging.getLogger(__name__)
_BACKLOG = 128
_TLS_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


class Listener:
    """Listens from `open` to `close` on every address of a host."""

    def __init__(self, server: web.Server, crowd: Crowd, metrics: Metrics, tls: ssl.SSLContext | None) -> None:
        """Give connections to aiohttp's `server`, as many as `crowd` holds."""
        self._server, self._crowd, self._metrics, self._tls = server, crowd, metrics, tls
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0. Raises `OSError` if the address cannot be used."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            listening = socket.create_server((address[0], port, *address[2:]), family=family, backlog=_BACKLOG)
            self._sockets.append(listening)
            listening.setblocking(False)
            # One port for all addresses.
            port = listening.getsockname()[1]
            self._start(self._accept(listening))
        return port

    async def close(self) -> None:
        """Take no more connections; those that are open stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                # Too few file handles, most often: room is made, and time is left to use it.
                _LOG.warning("A connection could not be taken (%s).", error.strerror)
                self._crowd.drop_oldest()
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            connection = HttpConnection(self._server, self._crowd, self._metrics, peer[0])
            connection.opened_by(self._start(self._open(accepted, connection)))
            # Where many wait, none of them comes before those who are here.
            await asyncio.sleep(0)

    async def _open(self, accepted: socket.socket, connection: HttpConnection) -> None:
        """Shake hands, then let the connection go its way."""
        try:
            async with asyncio.timeout(_TLS_SECONDS):
                await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted, ssl=self._tls)
        except (OSError, TimeoutError):
            pass
        finally:
            if not connection.is_open:
                self._crowd.remove(connection)
                accepted.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
