"""The voice agent of the examples, as its visitor meets it: it answers, yields the word, and answers again."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.places import ROOT

pytest.importorskip("pipecat", reason="pipecat-ai is not installed")
pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")

from helpers.frameworks.agent_visitor import RATE, Visitor, visitor

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


@pytest.mark.slow
def test_the_agent_answers_and_stops_when_its_visitor_speaks(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "examples" / "voice_agent.py", bundle, "--port", str(port)]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            asyncio.run(asyncio.wait_for(meet(f"http://127.0.0.1:{port}", process), 90))
        finally:
            process.terminate()
    assert "Traceback" not in (tmp_path / "log").read_text()


async def meet(url: str, process: subprocess.Popen) -> None:
    for _ in range(300):
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0:
                break
        await asyncio.sleep(0.1)
    async with visitor(url) as guest:
        await visit(guest)
