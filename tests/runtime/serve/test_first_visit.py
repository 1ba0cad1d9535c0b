"""The page as its visitors meet it, in a real Chromium and a real Firefox that have a loudspeaker and a microphone."""

import asyncio
import wave
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.media.virtual_sound import PulseServer, missing_pulse, pulse_server
from helpers.places import ROOT
from helpers.serving.browser import BROWSERS, Page, open_page
from helpers.serving.live_page import LIVE, Server, touch

SPEAKING = "document.body.hasAttribute('data-speaking')"
# Every 80 ms: whether the portrait speaks, and how much its mouth has changed.
WATCH_THE_MOUTH = """
  const context = new OffscreenCanvas(64, 64).getContext("2d", { willReadFrequently: true });
  let before = null;
  window.seen = [];
  setInterval(() => {
    context.drawImage(document.getElementById("video"), 0, 0, 64, 64);
    const mouth = context.getImageData(20, 38, 24, 16).data;
    if (before) {
      const change = mouth.reduce((sum, value, i) => sum + Math.abs(value - before[i]), 0) / mouth.length;
      window.seen.push([Number(document.body.hasAttribute("data-speaking")), change]);
    }
    before = mouth;
  }, 80);
"""
SCREENS = [(360, 640), (640, 360), (1280, 800), (2160, 3840), (3840, 2160)]
# What a visitor may touch, and what they look at, that is not wholly on the screen or covered by something else.
OUT_OF_SIGHT = """
  (() => [...document.querySelectorAll("footer button, #frame, #title, #meter")].filter((element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    const seen = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    const inside = left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
    return !inside || !(element.contains(seen) || seen.contains(element));
  }).map((element) => element.id || element.className))()
"""
# Speech of so many seconds 20 dB above a steady noise, a tick of the page at a time: when it is noticed.
NOTICED = """
  (async (noise, speech, ticks) => {
    const { SpeechDetector } = await import("/speech-detector.js");
    const detector = new SpeechDetector();
    for (let i = 0; i < 200; i++) if (detector.hear(noise + (i % 7) - 3, 16)) return -1;
    for (let i = 0; i < ticks; i++) if (detector.hear(speech, 16)) return 16 * (i + 1);
    return 0;
  })
"""


@pytest.fixture(params=["chromium", pytest.param("firefox", marks=pytest.mark.slow)])
def browser(request: pytest.FixtureRequest) -> str:
    if BROWSERS[request.param] is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def headset(tmp_path: Path) -> Iterator[PulseServer]:
    if reason := missing_pulse():
        pytest.skip(reason)
    with pulse_server(tmp_path) as server:
        server.plug_in_headset()
        yield server


def speech() -> tuple[np.ndarray, int]:
    with wave.open(str(ROOT / "examples" / "assets" / "speech.wav"), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()


async def require_that_all_is_seen(page: Page) -> None:
    for size in SCREENS:
        await page.resize(*size)
        assert await page.js(OUT_OF_SIGHT) == [], size


@pytest.mark.slow
def test_a_first_visit_ends_in_talk(nano_bundle: Path, tmp_path: Path, headset: PulseServer, browser: str) -> None:
    async def scenario(address: str) -> np.ndarray:
        sound = {"environment": headset.environment, "system_sound": True}
        async with open_page(address, tmp_path / "profile", browser, **sound) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            assert await page.js("document.querySelectorAll('#people [role=radio]').length") == 12
            await page.js("document.querySelector('[aria-checked=true]').focus()")
            for _ in range(2):
                key = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
                await page.js(f"document.activeElement.dispatchEvent({key})")
            assert await page.js("document.activeElement.getAttribute('aria-label')") == "Cleo"
            await touch(page, "start")
            await page.until(LIVE)
            assert await page.js("document.getElementById('portrait').alt") == "Cleo, at rest"
            await require_that_all_is_seen(page)
            await page.js(WATCH_THE_MOUTH)
            await asyncio.sleep(2.0)
            assert not await page.js(SPEAKING)
            assert await page.js("document.getElementById('meter').value") == 0
            headset.speak(*speech())
            await page.until("document.getElementById('meter').value > 0.2")
            await page.until(SPEAKING)
            await asyncio.sleep(5.0)
            await touch(page, "stop")
            await page.until("document.body.dataset.state === 'ready'")
            assert await page.js("document.activeElement.id") == "start"
            assert page.complaints == []
            return np.array(await page.js("seen"))

    with Server(nano_bundle, "--max-sessions", 1) as address:
        speaking, movement = asyncio.run(scenario(address)).T
    assert (speaking > 0).sum() > 20
    assert movement[speaking > 0].mean() > 2 * movement[speaking == 0].mean()


def test_a_portrait_that_a_program_feeds_stops_when_its_visitor_speaks(
    tmp_path: Path, headset: PulseServer, browser: str
) -> None:
    samples, rate = speech()

    async def scenario(address: str) -> None:
        sound = {"environment": headset.environment, "system_sound": True}
        async with aiohttp.ClientSession(address) as client:
            async with client.post("/api/sessions") as answer:
                made = await answer.json()
            path, headers = f"/api/sessions/{made['session']}", {"X-Session-Token": made["feed_token"]}

            async def asked(verb: str, data: bytes = b"") -> list[dict[str, object]]:
                async with client.post(f"{path}/{verb}", data=data, headers=headers) as answer:
                    assert answer.status == 200
                    return (await answer.json())["events"]

            async def say(seconds: int = 8) -> None:
                await asked(f"sound?rate={rate}", samples[: seconds * rate].tobytes())
                await asked("end_utterance")
                await page.until(SPEAKING)

            async def heard_until(event: str) -> dict[str, object]:
                events = []
                for _ in range(100):
                    for told in await asked("end_utterance"):
                        events.append(told)
                        if told.get("event") == event:
                            return told
                    await asyncio.sleep(0.1)
                raise AssertionError(f"nothing was {event}, but {events}")

            url = f"{address.rstrip('/')}{made['page']}"
            async with open_page(url, tmp_path / "profile", browser, **sound) as page:
                await page.until("document.body?.dataset.state === 'ready'")
                assert await page.js("document.getElementById('portrait').src.endsWith('/api/portraits/p0')")
                assert await page.js("getComputedStyle(document.getElementById('faces')).display") == "none"
                await touch(page, "start")
                await page.until(LIVE)
                assert await page.js("document.getElementById('interrupt').ariaDisabled") == "true"
                await require_that_all_is_seen(page)

                # By the keyboard.
                await say()
                await page.js("dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
                assert (await heard_until("interrupted"))["utterance"] == 0
                assert not await page.js(SPEAKING)

                # By speaking.
                await say()
                headset.speak(samples, rate)
                told = await heard_until("interrupted")
                headset.be_quiet()
                assert told["utterance"] == 1
                assert told["played_ms"] < 6000

                # To its end, while the visitor is silent.
                await say(seconds=1)
                assert (await heard_until("ended"))["utterance"] == 2

                assert await page.js(f"{NOTICED}(-70, -40, 100)") == 208
                assert await page.js(f"{NOTICED}(-30, -10, 100)") == 208
                assert await page.js(f"{NOTICED}(-70, -40, 9)") == 0, "a door"
                assert await page.js(f"{NOTICED}(-30, -24, 100)") == 0, "the noise itself"
                assert await page.js(f"{NOTICED}(-90, -60, 100)") == 0, "a whisper in the next room"
                assert page.complaints == []

    with Server(write_tiny_bundle(tmp_path / "bundle"), "--max-sessions", 1) as address:
        asyncio.run(scenario(address))
