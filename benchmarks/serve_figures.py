"""Measures the kiosk page in Chromium: `python benchmarks/serve_figures.py --bundle build/nano-fp32`."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

# The browser is driven by the tests' own helpers.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from helpers.serving.browser import open_page
from helpers.serving.live_page import LIVE, PROBE, Server, smooth, speech_and_silence, touch

FIRST = """
  document.getElementById("video").requestVideoFrameCallback((now) => (window.first = now - window.touched));
  window.touched = performance.now();
"""


async def measure(address: str, seconds: int, folder: Path) -> dict[str, object]:
    """Figures of one visitor who speaks for four of every seven seconds."""
    microphone = speech_and_silence(folder / "microphone.wav")
    async with open_page(address, folder / "profile", "chromium", microphone=microphone, before=PROBE) as page:
        await page.until("document.body?.dataset.state === 'ready'")
        await page.js(FIRST)
        await touch(page, "start")
        await page.until(LIVE)
        offsets, latencies = [], []
        for _ in range(seconds // 2):
            await asyncio.sleep(1.0)
            offsets.append(await page.js("offset()"))
            latencies.append(await page.js("parseFloat(document.getElementById('latency').innerText)"))
        figures = {
            "touch_to_first_frame_ms": round(await page.js("window.first")),
            "picture_before_sound_ms": percentiles(offsets),
            "latency_s": percentiles(latencies),
            "real_time_factor": float(await page.js("document.getElementById('rtf').innerText")),
            "status": await page.js("document.getElementById('status-text').innerText"),
        }
        # Looking at every picture takes a fifth of a core, which no visitor's browser does.
        await page.js("probe()")
        await asyncio.sleep(seconds / 2)
        seen = np.array(await page.js("seen"))
        return figures | {
            "correlation_of_loudness_and_mouth": round(
                float(np.corrcoef(smooth(seen[:, 1]), smooth(seen[:, 2]))[0, 1]), 2
            ),
        }


def percentiles(values: list[float | None]) -> dict[str, float]:
    """Median, 95th percentile and the largest, of the magnitudes."""
    found = np.abs([value for value in values if value is not None and np.isfinite(value)])
    return {name: round(float(np.percentile(found, q)), 1) for name, q in (("p50", 50), ("p95", 95), ("max", 100))}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--latency", type=float, help="of a chunk in seconds; see rap-serve --help")
    arguments = parser.parse_args()
    options = [] if arguments.latency is None else ["--latency", arguments.latency]
    server = Server(arguments.bundle, *options)
    with tempfile.TemporaryDirectory() as folder, server as address:
        figures = asyncio.run(measure(address, arguments.seconds, Path(folder)))
    print(json.dumps(figures, indent=2))
    print(server.complaints)


if __name__ == "__main__":
    main()
