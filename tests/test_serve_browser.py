"""The page in a real Chromium, whose microphone is a speech file."""

import asyncio
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page, open_page
from tiny_bundle import write_png, write_tiny_bundle

ROOT = Path(__file__).parent.parent
PROBE = (Path(__file__).parent / "probe.js").read_text()
LIVE = "document.body?.dataset.state === 'live' && document.getElementById('frame').classList.contains('moving')"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def speech_and_silence(path: Path) -> Path:
    """Four seconds of speech, three of silence; Chromium repeats it."""
    with wave.open(str(ROOT / "examples" / "assets" / "speech.wav"), "rb") as file:
        rate = file.getframerate()
        pcm = file.readframes(4 * rate)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm + bytes(3 * 2 * rate))
    return path


class Server:
    """`rap-serve` as a user starts it."""

    def __init__(self, bundle: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "rap_edge.runtime.serve.cli", "--bundle", bundle, "--port", "0", *arguments]
        self._stopped = False
        self._process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        )

    def __enter__(self) -> str:
        return self._process.stdout.readline().split()[-1]

    def stop(self) -> None:
        """Ask it to stop, once: a second signal would not wait."""
        if not self._stopped:
            self._process.send_signal(signal.SIGTERM)
        self._stopped = True

    def __exit__(self, *_: object) -> None:
        self.stop()
        _, self.complaints = self._process.communicate(timeout=30)
        assert self._process.returncode == 0
        assert "Traceback" not in self.complaints, self.complaints


async def touch(page: Page, button: str) -> None:
    await page.js(f"document.getElementById('{button}').click()")


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    return np.convolve(values, np.ones(width) / width, "same")


def test_the_portrait_moves_its_mouth_with_the_sound_that_comes_back(nano_bundle: Path, tmp_path: Path) -> None:
    async def scenario(address: str) -> tuple[np.ndarray, list[float]]:
        microphone = speech_and_silence(tmp_path / "microphone.wav")
        async with open_page(address, microphone, tmp_path / "profile", PROBE) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await touch(page, "start")
            await page.until(LIVE)
            await page.js("probe()")
            offsets = []
            for _ in range(16):
                await asyncio.sleep(1.0)
                offsets.append(await page.js("offset()"))
            await page.screenshot(tmp_path / "live.png")
            assert await page.js("document.getElementById('latency').innerText.endsWith(' s')")
            seen = np.array(await page.js("seen"))
            await touch(page, "stop")
            await page.until("document.body.dataset.state === 'ready'")
            assert page.complaints == []
        return seen, [offset for offset in offsets if offset is not None]

    with Server(nano_bundle, "--max-sessions", 1) as address:
        seen, offsets = asyncio.run(scenario(address))
    _, loudness, opening, movement, _ = seen.T
    loud, quiet = loudness > 0.02, smooth(loudness) < 0.002
    assert loud.sum() > 50
    assert quiet.sum() > 30
    assert movement[loud].mean() > 3 * movement[quiet].mean()
    assert opening[loud].mean() > 1.5 * opening[quiet].mean()
    # A machine that cannot keep up shows the last frame in silence now and then, which costs correlation.
    assert correlation(smooth(loudness), smooth(opening)) > 0.4
    assert abs(np.median(offsets)) < 150
    assert (tmp_path / "live.png").stat().st_size > 50_000


def test_the_page_falls_back_uploads_and_says_when_it_is_full(tmp_path: Path) -> None:
    async def scenario(address: str) -> None:
        microphone = speech_and_silence(tmp_path / "microphone.wav")
        async with open_page(f"{address}?transport=websocket", microphone, tmp_path / "profile", PROBE) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await touch(page, "start")
            await page.until(LIVE)
            await page.until("document.getElementById('video').currentTime > 1")
            assert await page.js("document.getElementById('video').videoWidth") == 64

            refused = await page.js(
                "fetch('/api/webrtc', {method: 'POST', body: JSON.stringify({sdp: 'm=audio m=video'})})"
                ".then((answer) => answer.status)"
            )
            assert refused == 503

            face = write_png(tmp_path / "face.png", np.full((80, 80, 3), 200, np.uint8))
            document = await page.call("DOM.getDocument")
            node = await page.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector="#file")
            await page.call("DOM.setFileInputFiles", files=[str(face)], nodeId=node["nodeId"])
            await page.until("document.querySelectorAll('.face[role=radio]').length === 2")
            await page.until(LIVE)
            await page.until("document.getElementById('video').currentTime > 0.5")

            broken = tmp_path / "broken.png"
            broken.write_bytes(face.read_bytes()[:60])
            await page.call("DOM.setFileInputFiles", files=[str(broken)], nodeId=node["nodeId"])
            await page.until("!document.getElementById('toast').hidden")
            assert "damaged" in await page.js("document.getElementById('toast').textContent")

    with Server(write_tiny_bundle(tmp_path / "bundle"), "--max-sessions", 1) as address:
        asyncio.run(scenario(address))


def test_the_page_waits_its_turn_and_comes_back_after_a_lost_server(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")

    async def scenario(address: str, stop: Callable[[], None]) -> None:
        microphone = speech_and_silence(tmp_path / "microphone.wav")
        async with open_page(address, microphone, tmp_path / "profile", PROBE) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await page.js(
                "window.taken = new WebSocket(location.origin.replace('http', 'ws') + '/api/stream');"
                'taken.onopen = () => taken.send(\'{"type": "start", "rate": 16000}\'); true'
            )
            await asyncio.sleep(1.0)
            await touch(page, "start")
            await page.until("document.body.dataset.state === 'full'")
            assert "one visitor at a time" in await page.js("document.getElementById('text').textContent")
            await page.js("taken.close()")
            await page.until(LIVE)
            stop()
            await page.until("document.body.dataset.state === 'reconnecting'")
            await page.until("document.getElementById('count').textContent.includes('Next try')")

    server = Server(bundle, "--max-sessions", 1)
    with server as address:
        asyncio.run(scenario(address, server.stop))
