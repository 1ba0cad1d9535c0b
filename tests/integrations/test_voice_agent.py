"""The voice agent of the examples, as its visitor meets it: it answers, yields the word, and answers again."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.places import ROOT

pytest.importorskip("pipecat", reason="pipecat-ai is not installed")
pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")

from helpers.frameworks.agent_visitor import RATE, Visitor, visitor
from helpers.serving.browser import BROWSERS, open_page

from rap_edge.runtime import read_audio, to_mono


def question() -> np.ndarray:
    """A second and a half of real speech, int16 at the microphone's rate."""
    with read_audio(ROOT / "examples" / "assets" / "speech.wav") as source:
        samples = np.concatenate([to_mono(block) for block in source])[: source.rate * 3 // 2]
        return np.rint(samples.repeat(RATE // source.rate) * (2**15 - 1)).astype(np.int16)


async def visit(guest: Visitor) -> None:
    await guest.until(lambda: len(guest.pictures) > 5)
    assert guest.loud(1.0) == 0.0
    guest.microphone.waiting = question()
    await guest.until(lambda: guest.loud(0.4) > 0.7)
    # The first answer takes eight seconds.
    guest.microphone.waiting = question()
    assert await guest.until(lambda: guest.loud(0.4) < 0.1) < 4.0
    shown = len(guest.pictures)
    await guest.until(lambda: guest.loud(0.4) > 0.7)
    assert len(guest.pictures) > shown


@contextmanager
def agent(folder: Path) -> Iterator[str]:
    """The agent's address, while it runs."""
    bundle = write_tiny_bundle(folder / "bundle")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "examples" / "voice_agent.py", bundle, "--port", str(port)]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + 60
            while "Running on" not in (folder / "log").read_text():
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
    assert "Traceback" not in (folder / "log").read_text()


@pytest.mark.slow
def test_the_agent_answers_and_stops_when_its_visitor_speaks(tmp_path: Path) -> None:
    async def meet(url: str) -> None:
        async with visitor(url) as guest:
            await visit(guest)

    with agent(tmp_path) as url:
        asyncio.run(asyncio.wait_for(meet(url), 90))


@pytest.mark.slow
@pytest.mark.parametrize("browser", sorted(BROWSERS))
def test_its_page_shows_the_face(tmp_path: Path, browser: str) -> None:
    if BROWSERS[browser] is None:
        pytest.skip(f"{browser} is not installed")

    async def look(url: str) -> None:
        async with open_page(url, tmp_path / "profile", browser) as page:
            await page.js("document.querySelector('button').click()")
            await page.until("document.querySelector('video').currentTime > 1.0")
            assert await page.js("document.querySelector('video').videoWidth") == TINY.width
            assert await page.js("document.querySelector('button')") is None

    with agent(tmp_path) as url:
        asyncio.run(asyncio.wait_for(look(f"{url}/"), 90))
