"""`BoxProcess`: one `rap-serve` as a child, its secrets, and what it answers."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from .boxes import Said
from .core_group import claim
from .order import Order

_READY = "rap-serve: open "
_ANSWER_SECONDS = 2.0
_END_SECONDS = 10.0


class BoxProcess:
    """Used from one event loop; `run` is its whole life."""

    def __init__(self, order: Order, host: str) -> None:
        """Be started by `run`, to listen on `host`."""
        self.order, self._host = order, host
        self._key, self._operator = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._group = claim(order.cores)
        self._address: str | None = None
        self._lines: deque[str] = deque(maxlen=20)
        self._process: asyncio.subprocess.Process | None = None
        self._ended = False

    async def run(self) -> None:
        """Start `rap-serve` and wait for its end."""
        cores = ",".join(map(str, self._group.cores)) or "-"
        port = self.order.port + self._group.number if self.order.port else 0
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rap_edge.fleet.serve.child", str(os.getpid()), cores),
            *self.order.arguments(self._host, port),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.order.environment(self._key, self._operator),
        )
        try:
            await asyncio.gather(self._read(process.stdout), self._read(process.stderr), process.wait())
        finally:
            self._ended, self._address = True, None

    async def said(self) -> Said:
        """See `Box.said`."""
        status: Any = None
        if self._address is not None and not self._ended:
            with suppress(ClientError, TimeoutError, ValueError):
                async with self._asking() as client, client.get(f"{self._address}api/status") as answer:
                    status = await answer.json() if answer.status == 200 else None
        failed = self._ended and self._process is not None and self._process.returncode != 0
        fault = next(iter(reversed(self._lines)), "") if failed else ""
        return Said(self.order, self._key, status, self._ended, fault)

    async def get(self, path: str) -> tuple[int, str, bytes]:
        """See `Box.get`."""
        if self._address is None:
            return 503, "", b""
        try:
            async with self._asking() as client, client.get(self._address.rstrip("/") + path) as answer:
                return answer.status, answer.headers.get("Content-Type", ""), await answer.read()
        except (ClientError, TimeoutError):
            return 503, "", b""

    async def drain(self, seconds: float) -> None:
        """See `Box.drain`."""
        if self._address is None:
            await self.stop()
            return
        with suppress(ClientError, TimeoutError):
            async with self._asking() as client:
                await client.post(f"{self._address}api/drain", json={"seconds": seconds})

    async def stop(self) -> None:
        """End it with a word to whoever is there."""
        if self._process is None or self._ended:
            return
        with suppress(ProcessLookupError):
            for number in (signal.SIGINT, signal.SIGKILL):
                self._process.send_signal(number)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_END_SECONDS):
                        await self._process.wait()
                        return

    def _asking(self) -> ClientSession:
        headers = {"Authorization": f"Bearer {self._operator}"}
        # It is our child: its certificate need not have this name.
        connector = TCPConnector(ssl=False)
        return ClientSession(connector=connector, headers=headers, timeout=ClientTimeout(total=_ANSWER_SECONDS))

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := (await stream.readline()).decode(errors="replace").rstrip():
            if line.startswith(_READY):
                self._address = line.removeprefix(_READY)
            else:
                self._lines.append(line)
                print(line, file=sys.stderr, flush=True)
