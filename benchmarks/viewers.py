"""Frames per second for several viewers of one bundle: in turn with all cores, and side by side with a few each.

    python benchmarks/viewers.py --bundle build/nano-fp32 --rounds 3

Both ways take turns in one run; medians. The frames of both are compared bit for bit. Exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack

import numpy as np

from rap_edge.runtime import Avatar
from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.session.chunk_cost import measure_chunks

VIEWERS = (1, 2, 3, 4)
CHUNKS = 4


def rendered(avatar: Avatar, viewers: int) -> tuple[float, tuple[np.ndarray, ...]]:
    """Seconds in which each of `viewers` sessions, which never pause, gets a chunk; and their frames."""
    with ExitStack() as opened:
        sessions = [opened.enter_context(avatar.session(seed=seed)) for seed in range(viewers)]
        started = time.perf_counter()
        cost = measure_chunks(sessions, CHUNKS - 1)
        return (time.perf_counter() - started) / CHUNKS, cost.frames


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--engine")
    parser.add_argument("--rounds", type=argument(Whole(1, 1000)), default=3)
    arguments = parser.parse_args()
    same = True
    with ExitStack() as opened:
        ways = {
            name: opened.enter_context(Avatar.open(arguments.bundle, engine=arguments.engine, viewers=viewers))
            for name, viewers in (("in turn", 1), ("shared", max(VIEWERS)))
        }
        shared = ways["shared"]
        print(f"{shared.spec.name} {shared.precision}, {shared.engine}, {shared.device}")
        print(*shared.notes, sep="\n")
        print("\n| viewers | frames/s in turn | frames/s as chosen | ratio | a chunk for each in turn | as chosen |")
        print("|---|---|---|---|---|---|")
        for viewers in VIEWERS:
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            frames: dict[str, tuple[np.ndarray, ...]] = {}
            for _ in range(arguments.rounds):
                for name, avatar in ways.items():
                    taken, frames[name] = rendered(avatar, viewers)
                    seconds[name].append(taken)
            same &= all(map(np.array_equal, frames["in turn"], frames["shared"]))
            in_turn, chosen = (statistics.median(seconds[name]) for name in ("in turn", "shared"))
            rates = [viewers * shared.spec.new_frames / value for value in (in_turn, chosen)]
            print(
                f"| {viewers} | {rates[0]:.1f} | {rates[1]:.1f} | {in_turn / chosen:.2f} "
                f"| {1e3 * in_turn:.0f} ms | {1e3 * chosen:.0f} ms |",
                flush=True,
            )
    print(f"\nThe frames of both ways are {'the same, bit for bit' if same else 'NOT the same'}.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
