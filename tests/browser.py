"""A real headless Chromium, driven over its DevTools protocol; the microphone is a file."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SECONDS = 30.0


class Page:
    """One page: evaluate JavaScript, take screenshots."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def pump(self) -> None:
        async for message in self._socket:
            data = message.json()
            if "id" in data:
                self._answers.pop(data["id"]).set_result(data)
            elif data["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(data["params"]["exceptionDetails"]))
            elif data["method"] == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                self.complaints.append(data["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        data = await asyncio.wait_for(answer, _SECONDS)
        assert "error" not in data, data
        return data["result"]

    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise, as if the visitor had touched the screen."""
        result = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, condition: str, seconds: float = 30.0) -> None:
        """Wait until a JavaScript condition holds."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await self.js(condition):
            state = f"{await self.js('document.body.innerText')!r} {self.complaints}"
            assert asyncio.get_running_loop().time() < deadline, f"{condition}: {state}"
            await asyncio.sleep(0.1)

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )


@contextlib.asynccontextmanager
async def open_page(url: str, microphone: Path, folder: Path, before: str = "") -> AsyncIterator[Page]:
    """Chromium on `url`; `before` is JavaScript that runs ahead of the page's own."""
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--mute-audio",
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--allow-loopback-in-peer-connection",
        "--autoplay-policy=no-user-gesture-required",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = folder / "DevToolsActivePort"
        async with asyncio.timeout(_SECONDS):
            while not (port_file.exists() and port_file.read_text().strip()):
                await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (target,) = [entry for entry in await answer.json() if entry["type"] == "page"]
            async with client.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                pump = asyncio.ensure_future(page.pump())
                for domain in ("Page", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                if before:
                    await page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
                await page.resize(1280, 800)
                await page.call("Page.navigate", url=url)
                try:
                    yield page
                finally:
                    pump.cancel()
                    await asyncio.gather(pump, return_exceptions=True)
    finally:
        process.terminate()
        process.wait(20)
