"""Visitors of `rap-serve`, one after the other and not all well behaved, and what they leave behind in the server."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import SHUT_RDWR

import aiohttp
import numpy as np
from leaks import Look, judge, looks
from streams import RATE, handles, resident_mb

from rap_edge.runtime.cli.progress import Progress

_SETTLE_SECONDS = 2.0
_KINDS = ("stays to the end", "closes in mid-stream", "is cut off", "talks nonsense")


def visitors(bundle: str, count: int, folder: Path) -> bool:
    """Serve so many visitors over WebSocket; looks at the server's process from outside."""
    with _server(bundle, folder) as (address, process):
        seen, refused = asyncio.run(_visits(address, process, count))
    print(f"visitors          {count}, each in turn {', '.join(_KINDS)}; {refused} had to wait for a place")
    # A pool of the server may have let a thread go, at the first look too; what leaks is at its most in the last one.
    early = zip(*(look[1] for look in seen[:-1]), strict=True)
    fewer = all(late <= max(before) for before, late in zip(early, seen[-1][1], strict=True))
    return judge(count, seen, settled=fewer)


async def _visits(address: str, process: int, count: int) -> tuple[list[Look], int]:
    when, seen, refused = looks(count), list[Look](), 0
    with Progress("visitors", count) as progress:
        for index in range(count + 1):
            if index in when:
                await asyncio.sleep(_SETTLE_SECONDS)
                seen.append((resident_mb(process), handles(process)))
            if index < count:
                # One who was cut off keeps the place until the server notices.
                for attempt in itertools.count():
                    if await _visit(address, _KINDS[index % len(_KINDS)]):
                        refused += attempt
                        break
                    await asyncio.sleep(0.1)
            progress.update(index)
    return seen, refused


async def _visit(address: str, kind: str) -> bool:
    """One visit; False if there was no place."""
    pcm = (np.random.default_rng(0).uniform(-0.3, 0.3, RATE) * 32767).astype("<i2").tobytes()
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{address}api/stream") as socket:
        await socket.send_json({"type": "start", "rate": RATE, "format": "s16le", "portrait": None})
        if (await socket.receive_json())["type"] != "ready":
            return False
        for start in range(0, len(pcm), 8000):
            await socket.send_bytes(pcm[start : start + 8000])
        if kind == _KINDS[0]:
            await socket.send_json({"type": "finish"})
        if kind == _KINDS[3]:
            await socket.send_str("what is this?")
            await socket.send_bytes(b"half a sample")
        video = 0
        async for message in socket:
            video += len(message.data) if message.type is aiohttp.WSMsgType.BINARY else 0
            if video and kind in _KINDS[1:3]:
                break
        if kind == _KINDS[2]:
            socket.get_extra_info("socket").shutdown(SHUT_RDWR)
        # Whoever sends what cannot be sound is thrown out, perhaps before the first picture.
        assert video or kind == _KINDS[3]
    return True


@contextmanager
def _server(bundle: str, folder: Path) -> Iterator[tuple[str, int]]:
    program = [sys.executable, "-m", "rap_edge.runtime.serve.cli"]
    command = [*program, "--bundle", bundle, "--port", "0", "--max-sessions", "4"]
    with (folder / "server.log").open("w+") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1], server.pid
        finally:
            server.terminate()
            server.wait(timeout=30)
            if server.stdout is not None:
                server.stdout.close()
        log.seek(0)
        assert "Traceback" not in log.read()
