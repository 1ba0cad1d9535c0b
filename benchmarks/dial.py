"""What the latency dial costs, for any bundle: rendering, real-time factor and latency for every length of a chunk.

    python benchmarks/dial.py --bundle build/nano-fp32 --bundle build/nano-int8 --rounds 5

Bundles and settings take turns in one run; medians over all chunks but the first two of each round. The latency is the
least from a sound to the picture that it moves: the chunk, the sound that the model waits for behind it, the rendering.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rap_edge.runtime import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.checks.bounds import Real, Whole, argument

HEAD = (
    "| bundle | new latents | chunk | its rendering | real-time factor | latency at best |\n|---|--:|--:|--:|--:|--:|"
)
WARM_UP = 2


def chunk_seconds(avatar: Avatar, seconds: float) -> list[float]:
    """Seconds that every chunk of a noise takes, without the first `WARM_UP`."""
    spec, found = avatar.spec, []
    with avatar.session(seed=0) as session:
        samples = round(seconds * spec.sample_rate)
        session.push(np.random.default_rng(0).normal(0, 0.05, samples).astype(np.float32))
        session.finish()
        started = time.perf_counter()
        for _ in session.chunks():
            found.append(time.perf_counter() - started)
            started = time.perf_counter()
    return found[WARM_UP:]


def rows(bundles: Sequence[Path], rounds: int, seconds: float, threads: int | None) -> list[str]:
    """A row of `HEAD` for every setting of every bundle."""
    settings = [
        (bundle, count) for bundle in bundles for count in range(Bundle.open(bundle).manifest.spec.new_latents, 0, -1)
    ]
    times: dict[tuple[Path, int], list[float]] = {setting: [] for setting in settings}
    for _ in range(rounds):
        for bundle, count in settings:
            with Avatar.open(bundle, new_latents=count, threads=threads) as avatar:
                times[bundle, count] += chunk_seconds(avatar, seconds)
    lines = []
    for (bundle, count), found in times.items():
        spec = Bundle.open(bundle).manifest.spec.with_new_latents(count)
        median, waited = statistics.median(found), spec.look_ahead_samples / spec.sample_rate
        lines.append(
            f"| {bundle.name} | {count} | {spec.chunk_seconds:.2f} s | {1e3 * median:.0f} ms "
            f"| {median / spec.chunk_seconds:.2f} | {spec.chunk_seconds + waited + median:.2f} s |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--rounds", type=argument(Whole(1, 1000)), default=3)
    parser.add_argument("--seconds", type=argument(Real(1.0, 600.0, "seconds")), default=8.0, help="of every round")
    parser.add_argument("--threads", type=argument(Whole(1, 256)))
    options = parser.parse_args(arguments)
    print(HEAD)
    for line in rows(options.bundle, options.rounds, options.seconds, options.threads):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
