"""Real headless browsers with one set of verbs: Chromium over its DevTools protocol, Firefox over WebDriver BiDi."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
BROWSERS = {"chromium": CHROMIUM, "firefox": FIREFOX}
_SECONDS = 30.0
_FIREFOX_SETTINGS = {
    # Without a question.
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.peerconnection.ice.loopback": True,
}


class Page(ABC):
    """One page: evaluate JavaScript, choose files, take screenshots."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    @abstractmethod
    async def open(self, url: str, before: str) -> None:
        """Go to `url`; `before` is JavaScript that runs ahead of the page's own."""

    @abstractmethod
    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise, as if the visitor had touched the screen."""

    @abstractmethod
    async def choose_file(self, selector: str, path: Path) -> None:
        """What a visitor does with a file picker."""

    @abstractmethod
    async def screenshot(self, path: Path) -> None:
        """What is seen, as PNG."""

    @abstractmethod
    async def resize(self, width: int, height: int) -> None:
        """Of what is seen, in CSS pixels."""

    @abstractmethod
    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        """Keep what the browser complains of."""

    async def pump(self) -> None:
        async for message in self._socket:
            data = message.json()
            if data.get("id") is not None:
                self._answers.pop(data["id"]).set_result(data)
            elif "method" in data:
                self._note(data["method"], data["params"])

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        data = await asyncio.wait_for(answer, _SECONDS)
        assert "error" not in data, data
        return data["result"]

    async def until(self, condition: str, seconds: float = 30.0) -> None:
        """Wait until a JavaScript condition holds."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await self.js(condition):
            state = f"{await self.js('document.body.innerText')!r} {self.complaints}"
            assert asyncio.get_running_loop().time() < deadline, f"{condition}: {state}"
            await asyncio.sleep(0.1)


class ChromiumPage(Page):
    async def open(self, url: str, before: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        if before:
            await self.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        await self.call("Page.navigate", url=url)

    async def js(self, expression: str) -> Any:
        result = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def choose_file(self, selector: str, path: Path) -> None:
        document = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])


class FirefoxPage(Page):
    async def open(self, url: str, before: str) -> None:
        await self.call("session.new", capabilities={})
        await self.call("session.subscribe", events=["log.entryAdded"])
        tree = await self.call("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]
        if before:
            await self.call("script.addPreloadScript", functionDeclaration=f"() => {{{before}}}")
        await self.call("browsingContext.navigate", context=self._context, url=url, wait="none")

    async def js(self, expression: str) -> Any:
        return _plain(await self._evaluate(expression))

    async def choose_file(self, selector: str, path: Path) -> None:
        element = await self._evaluate(f"document.querySelector({json.dumps(selector)})")
        reference = {"sharedId": element["sharedId"]}
        await self.call("input.setFiles", context=self._context, element=reference, files=[str(path)])

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("browsingContext.captureScreenshot", context=self._context)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def resize(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        await self.call("browsingContext.setViewport", context=self._context, viewport=viewport)

    async def _evaluate(self, expression: str) -> dict[str, Any]:
        answer = await self.call(
            "script.evaluate",
            expression=expression,
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        assert answer["type"] == "success", answer
        return answer["result"]

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "log.entryAdded" and parameters["level"] == "error":
            self.complaints.append(str(parameters["text"]))


def _plain(remote: dict[str, Any]) -> Any:
    """A value as BiDi describes it."""
    value = remote.get("value")
    if remote["type"] == "array":
        return [_plain(item) for item in value]
    if remote["type"] == "object":
        return {name: _plain(item) for name, item in value}
    if remote["type"] == "number":
        return float(value) if isinstance(value, str) else value
    return value if remote["type"] in ("string", "boolean") else None


@contextlib.asynccontextmanager
async def open_page(
    url: str,
    folder: Path,
    browser: str,
    *,
    microphone: Path | None = None,
    before: str = "",
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    system_sound: bool = False,
) -> AsyncIterator[Page]:
    """A browser on `url` with a new profile in `folder`.

    The microphone is a WAV file in Chromium and a tone in Firefox, or with `system_sound` the system's own in both.
    `before` is JavaScript that runs ahead of the page's own; `environment` is added to the browser's, for one that has
    a loudspeaker, say.
    """
    folder.mkdir()
    start = _firefox if browser == "firefox" else _chromium
    command = [*start(folder, microphone, system_sound), *options, "about:blank"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    try:
        async with aiohttp.ClientSession() as client, await _connect(client, folder, browser) as socket:
            page = (FirefoxPage if browser == "firefox" else ChromiumPage)(socket)
            pump = asyncio.ensure_future(page.pump())
            try:
                await page.open(url, before)
                await page.resize(1280, 800)
                yield page
            finally:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
    finally:
        process.terminate()
        process.wait(20)


def _chromium(folder: Path, microphone: Path | None, system_sound: bool) -> list[str]:
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--use-fake-ui-for-media-stream",
        "--allow-loopback-in-peer-connection",
        "--autoplay-policy=no-user-gesture-required",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
    ]
    if not system_sound:
        command += ["--mute-audio", "--use-fake-device-for-media-stream"]
    return command if microphone is None else [*command, f"--use-file-for-fake-audio-capture={microphone}"]


def _firefox(folder: Path, microphone: Path | None, system_sound: bool) -> list[str]:
    settings = _FIREFOX_SETTINGS | {"media.navigator.streams.fake": not system_sound}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items()]
    (folder / "user.js").write_text("".join(lines))
    return [str(FIREFOX), "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port", "0"]


async def _connect(client: aiohttp.ClientSession, folder: Path, browser: str) -> aiohttp.ClientWebSocketResponse:
    """The socket that drives the browser, which writes its port into its profile."""
    file = folder / ("WebDriverBiDiServer.json" if browser == "firefox" else "DevToolsActivePort")
    async with asyncio.timeout(_SECONDS):
        while not (file.exists() and file.read_text().strip()):
            await asyncio.sleep(0.05)
    if browser == "firefox":
        address = f"ws://127.0.0.1:{json.loads(file.read_text())['ws_port']}/session"
    else:
        async with client.get(f"http://127.0.0.1:{file.read_text().split()[0]}/json/list") as answer:
            (target,) = [entry for entry in await answer.json() if entry["type"] == "page"]
        address = target["webSocketDebuggerUrl"]
    return await client.ws_connect(address, max_msg_size=0)
