"""The kiosk page in a browser, and what is measured on it."""

import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from helpers.places import ROOT
from helpers.serving.browser import Page

PROBE = (Path(__file__).parent / "probe.js").read_text()


LIVE = "document.body?.dataset.state === 'live' && document.getElementById('frame').classList.contains('moving')"


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


def smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    return np.convolve(values, np.ones(width) / width, "same")
