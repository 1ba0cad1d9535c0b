"""The page in a real Chromium, whose microphone is a speech file, and in a real Firefox, whose microphone is a tone."""

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_png, write_tiny_bundle
from helpers.media.virtual_sound import missing_pulse, pulse_server
from helpers.serving.browser import BROWSERS, open_page
from helpers.serving.live_page import LIVE, PROBE, Server, smooth, speech_and_silence, touch
from helpers.serving.turn_server import SECRET, TURNSERVER, turn_server

from rap_edge.runtime.outputs.mp4_muxer import STREAM, Mp4Muxer

SILENT_BROWSER = """
  window.contexts = [];
  const Context = window.AudioContext;
  window.AudioContext = class extends Context {
    constructor(...options) {
      super(...options);
      window.contexts.push(this);
    }
  };
"""
# No candidate is told: what a firewall does that lets no UDP through.
BLOCKED = """
  const Blocked = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Blocked {
    constructor(options) {
      super({ ...options, iceTransportPolicy: "relay" });
    }
  };
"""


@pytest.fixture
def chromium() -> str:
    return installed("chromium")


@pytest.fixture
def firefox() -> str:
    return installed("firefox")


@pytest.fixture(params=sorted(BROWSERS))
def browser(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture
def loudspeaker(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a program that can be heard; Chromium needs none."""
    if reason := missing_pulse():
        pytest.skip(reason)
    with pulse_server(tmp_path) as server:
        yield server.environment


def installed(name: str) -> str:
    if BROWSERS[name] is None:
        pytest.skip(f"{name} is not installed")
    return name


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_the_portrait_moves_its_mouth_with_the_sound_that_comes_back(
    nano_bundle: Path, tmp_path: Path, chromium: str
) -> None:
    async def scenario(address: str) -> tuple[np.ndarray, list[float]]:
        microphone = speech_and_silence(tmp_path / "microphone.wav")
        async with open_page(address, tmp_path / "profile", chromium, microphone=microphone, before=PROBE) as page:
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


def test_a_browser_without_a_loudspeaker_is_not_held_by_its_silent_sound(tmp_path: Path, firefox: str) -> None:
    async def scenario(address: str) -> None:
        async with open_page(address, tmp_path / "profile", firefox, before=SILENT_BROWSER) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await touch(page, "start")
            await page.until(LIVE)
            await page.until("document.getElementById('latency').innerText.endsWith(' s')")
            assert await page.js("contexts.every((context) => context.state === 'suspended')")
            assert await page.js("!!document.getElementById('video').srcObject")
            await touch(page, "stop")
            await page.until("document.body.dataset.state === 'ready'")
            assert page.complaints == []

            # The plain path needs the browser's sound, and says so.
            await page.js("delete window.RTCPeerConnection")
            await touch(page, "start")
            await page.until("document.body.dataset.state === 'error'")
            assert "loudspeaker" in await page.js("document.getElementById('text').textContent")

    with Server(write_tiny_bundle(tmp_path / "bundle"), "--max-sessions", 1) as address:
        asyncio.run(scenario(address))


def test_the_page_falls_back_uploads_and_says_when_it_is_full(
    tmp_path: Path, browser: str, loudspeaker: dict[str, str]
) -> None:
    async def scenario(address: str) -> None:
        async with open_page(address, tmp_path / "profile", browser, before=BLOCKED, environment=loudspeaker) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await touch(page, "start")
            await page.until(LIVE)
            assert await page.js("document.getElementById('video').srcObject === null")
            await page.resize(360, 640)
            await page.js("document.getElementById('status-text').textContent = 'Listening, machine busy'")
            assert await page.js("document.documentElement.scrollWidth") == 360
            assert await page.js("((box) => box.width / box.height)(frame.getBoundingClientRect())") == pytest.approx(1)
            await page.until("document.getElementById('video').currentTime > 1")
            assert await page.js("document.getElementById('video').videoWidth") == 64

            refused = await page.js(
                "fetch('/api/webrtc', {method: 'POST', body: JSON.stringify({sdp: 'm=audio m=video'})})"
                ".then((answer) => answer.status)"
            )
            assert refused == 503

            face = write_png(tmp_path / "face.png", np.full((80, 80, 3), 200, np.uint8))
            await page.choose_file("#file", face)
            await page.until("document.querySelectorAll('.face[role=radio]').length === 2")
            await page.until(LIVE)
            await page.until("document.getElementById('video').currentTime > 0.5")

            broken = tmp_path / "broken.png"
            broken.write_bytes(face.read_bytes()[:60])
            await page.choose_file("#file", broken)
            await page.until("!document.getElementById('toast').hidden")
            assert "damaged" in await page.js("document.getElementById('toast').textContent")

    with Server(write_tiny_bundle(tmp_path / "bundle"), "--max-sessions", 1) as address:
        asyncio.run(scenario(address))


def long_stream(seconds: int) -> list[str]:
    """What the WebSocket sends in so many seconds, in parts of a second, as base64."""
    file, parts = io.BytesIO(), []
    muxer = Mp4Muxer(file, "stream", 64, 25, 48000, 1, STREAM)
    for second in range(seconds):
        # A cut between the regular keyframes.
        frames = np.full((25, 64, 64, 3), 200 if second == 5 else 60, np.uint8)
        muxer.write(frames, np.zeros((48000, 1), np.float32))
        parts.append(base64.b64encode(file.getvalue()).decode())
        file.seek(0)
        file.truncate()
    muxer.abandon()
    return parts


@pytest.mark.slow
def test_a_player_that_is_behind_jumps_to_the_present_and_lets_go_of_what_was_shown(
    tmp_path: Path, browser: str, loudspeaker: dict[str, str]
) -> None:
    parts = json.dumps(long_stream(60))

    async def scenario(address: str) -> None:
        async with open_page(address, tmp_path / "profile", browser, environment=loudspeaker) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await page.js(
                f"""(async () => {{
                  const {{ Player }} = await import("/websocket.js");
                  const mime = 'video/mp4; codecs="avc1.64000a, mp4a.40.2"';
                  const player = new Player(MediaSource, video, mime, () => (window.broken = true));
                  window.holes = [];
                  for (const part of {parts}) {{
                    player.append(Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0)));
                    await new Promise((next) => setTimeout(next, 40));
                    const {{ buffered, currentTime }} = video;
                    if (buffered.length !== 1 || buffered.start(0) > currentTime) holes.push(currentTime);
                  }}
                }})()"""
            )
            await page.until("video.currentTime > 57")
            assert await page.js("holes.length") <= 1, "only before the first picture nothing is there to show"
            assert await page.js("video.buffered.start(0)") >= 20
            assert not await page.js("window.broken")

    with Server(write_tiny_bundle(tmp_path / "bundle")) as address:
        asyncio.run(scenario(address))


@pytest.mark.slow
@pytest.mark.skipif(TURNSERVER is None, reason="coturn is not installed")
def test_a_browser_whose_packets_reach_the_turn_server_only_talks_by_webrtc(tmp_path: Path, browser: str) -> None:
    async def scenario(address: str) -> None:
        async with open_page(address, tmp_path / "profile", browser, before=BLOCKED) as page:
            await page.until("document.body?.dataset.state === 'ready'")
            await touch(page, "start")
            await page.until(LIVE)
            await page.until("document.getElementById('latency').innerText.endsWith(' s')")
            assert await page.js("!!document.getElementById('video').srcObject")

    file = tmp_path / "turn.json"
    with turn_server(tmp_path) as url:
        file.write_text(json.dumps([{"urls": url, "secret": SECRET}]))
        with Server(write_tiny_bundle(tmp_path / "bundle"), "--ice-file", file) as address:
            asyncio.run(scenario(address))
    assert "CHANNEL_BIND processed, success" in (tmp_path / "turn.log").read_text()


def test_the_page_waits_its_turn_and_comes_back_after_a_lost_server(tmp_path: Path, chromium: str) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")

    async def scenario(address: str, stop: Callable[[], None]) -> None:
        microphone = speech_and_silence(tmp_path / "microphone.wav")
        async with open_page(address, tmp_path / "profile", chromium, microphone=microphone) as page:
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
