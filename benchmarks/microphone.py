"""How long `rap-run --mic` takes from a sound to its picture, with a virtual microphone and a screen that nobody sees.

    python benchmarks/microphone.py --bundle build/nano-int8 --latency 0.16 --latency 0.32 --seconds 30

PulseAudio's null sink is the microphone, Xvfb the screen. Figures are those of the report: a sample's capture to the
moment when its picture is shown, the player's own waits included.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rap_edge.runtime import read_audio, to_mono
from rap_edge.runtime.checks.bounds import Real, argument
from rap_edge.runtime.inputs.convert import to_int16

# The tests' own microphone and screen.
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.media.virtual_screen import missing_screen, x_server  # noqa: E402
from helpers.media.virtual_sound import missing_pulse, pulse_server  # noqa: E402

SPEECH = ROOT / "examples" / "assets" / "speech.wav"
HEAD = (
    "| bundle | chunk | real-time factor | latency p50 / p95 | picture to sound p95 | late chunks |\n"
    "|---|--:|--:|--:|--:|--:|"
)


def spoken(seconds: float) -> tuple[np.ndarray, int]:
    """The demo's speech over and over, int16 [samples, 1], and its rate."""
    with read_audio(SPEECH) as speech:
        sound = np.concatenate([to_mono(block) for block in speech])
        return to_int16(np.resize(sound, round(seconds * speech.rate)))[:, None], speech.rate


def listen(bundle: Path, latency: float, seconds: float) -> dict[str, Any]:
    """The report of a `rap-run --mic` that is stopped by Ctrl-C."""
    with tempfile.TemporaryDirectory() as name, x_server() as display, pulse_server(Path(name)) as server:
        report = Path(name) / "report.json"
        command = [sys.executable, "-m", "rap_edge.runtime.cli.run", "--bundle", str(bundle), "--mic", "--window"]
        command += ["--latency", str(latency), "--report", str(report)]
        environment = server.environment | {
            "ALSA_CONFIG_PATH": str(server.config),
            "DISPLAY": display,
            "SDL_VIDEODRIVER": "x11",
            "SDL_AUDIODRIVER": "dummy",
        }
        server.speak(*spoken(seconds + 30))
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        result: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--latency", type=argument(Real(0.02, 60.0, "seconds")), action="append", required=True)
    parser.add_argument("--seconds", type=argument(Real(5.0, 3600.0, "seconds")), default=30.0)
    options = parser.parse_args(arguments)
    if reason := missing_pulse() or missing_screen():
        parser.error(reason)
    print(HEAD)
    for bundle in options.bundle:
        for latency in options.latency:
            found = listen(bundle, latency, options.seconds)
            live = found["live"]
            print(
                f"| {bundle.name} | {latency:.2f} s | {found['rtf']:.2f} "
                f"| {live['latency_p50_ms'] / 1e3:.2f} / {live['latency_p95_ms'] / 1e3:.2f} s "
                f"| {live['av_offset_p95_ms']:.0f} ms | {live['late_chunks']} of {found['chunks']} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
