"""How fast a face speaks, stops and speaks again: `python benchmarks/interruptions.py --bundle build/nano-fp32`.

Speech comes in at once, as from a synthesiser. Per latency, the median and the worst of several rounds: from the first
sample of an utterance to its first frame, from an interrupt to the last frame of what was said, from the first sample
after an interrupt to the first frame of the new utterance; and how much the picture changes across the seams between
idle motion and speech (the largest change of one frame there), over the mean change within speech.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rap_edge.runtime import Avatar, AvatarStream, Bundle, StreamFrame, read_audio, to_mono

LATENCIES = (0.32, 0.64, 0.96)


@dataclass
class Figures:
    """Seconds and ratios of all rounds."""

    first: list[float] = field(default_factory=list)
    stop: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    into: list[float] = field(default_factory=list)
    out: list[float] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)


class Watched:
    """A stream whose frames are timed as they come."""

    def __init__(self, stream: AvatarStream) -> None:
        self._frames: Iterator[StreamFrame] = iter(stream)
        self.last: StreamFrame | None = None
        self.change = 0.0

    def next(self) -> StreamFrame:
        frame = next(self._frames)
        if self.last is not None:
            self.change = float(np.abs(frame.picture.astype(np.int16) - self.last.picture).mean())
        self.last = frame
        return frame

    def until(self, speaking: bool) -> tuple[float, float]:
        """When the first frame comes that speaks, or does not, and the change of the picture at it."""
        while (self.next().utterance is not None) is not speaking:
            pass
        return time.monotonic(), self.change


def rounds(stream: AvatarStream, speech: np.ndarray, rate: int, count: int) -> Figures:
    """Speak, interrupt, speak again and end, `count` times."""
    figures, watched = Figures(), Watched(stream)
    for _ in range(150):
        watched.next()
    for _ in range(count):
        for _ in range(30):
            watched.next()
        began = time.monotonic()
        stream.push(speech, sample_rate=rate)
        stream.end_utterance()
        at, seam = watched.until(True)
        figures.first.append(at - began)
        within = []
        for _ in range(20):
            watched.next()
            within.append(watched.change)
        usual = max(statistics.mean(within), 1e-6)
        figures.into.append(seam / usual)
        asked = time.monotonic()
        # From another thread, as it happens: the next frame may be on its way already.
        threading.Timer(0.013, stream.interrupt).start()
        at, seam = watched.until(False)
        figures.stop.append(at - asked - 0.013)
        figures.cut.append(seam / usual)
        began = time.monotonic()
        stream.push(speech[: round(1.2 * rate)], sample_rate=rate)
        stream.end_utterance()
        at, _ = watched.until(True)
        figures.again.append(at - began)
        watched.until(False)
        # Behind the last word the chunk goes on in silence; the seam comes at its end.
        after = []
        for _ in range(30):
            watched.next()
            after.append(watched.change)
        figures.out.append(max(after) / usual)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args(arguments)
    with read_audio("examples/assets/speech.wav") as file:
        speech, rate = np.concatenate([to_mono(block) for block in file]), file.rate
    bundle = Bundle.open(chosen.bundle)
    print("| latency | chunk's cost | first frame | stops | again | into speech | cut | out of speech |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for latency in LATENCIES:
        new_latents = bundle.manifest.spec.with_latency(latency).new_latents
        with Avatar.open(bundle, new_latents=new_latents, threads=chosen.threads) as avatar:
            cost = avatar.chunk_cost()
            with avatar.stream() as stream:
                figures = rounds(stream, speech, rate, chosen.rounds)
            times = [_spread(values, 1000, " ms") for values in (figures.first, figures.stop, figures.again)]
            ratios = [_spread(values, 1, "") for values in (figures.into, figures.cut, figures.out)]
            cells = [f"{avatar.spec.chunk_seconds:.2f} s", f"{1000 * cost:.0f} ms", *times, *ratios]
            print("|", " | ".join(cells), "|", flush=True)
    return 0


def _spread(values: Sequence[float], scale: float, unit: str) -> str:
    digits = 0 if unit else 2
    return f"{scale * statistics.median(values):.{digits}f}{unit} ({scale * max(values):.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
