"""Frames per second for several viewers of one bundle: in turn with all cores, and side by side with a few each.

    python benchmarks/viewers.py --bundle build/nano-fp32 --rounds 3

Both ways take turns in one run; medians. The frames of both are compared bit for bit. Exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np

from rap_edge.runtime import Avatar
from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.loop.host_loop import LoopMaker
from rap_edge.runtime.loop.interface import Reference
from rap_edge.runtime.session.chunk_cost import ChunkCost, measure_chunks
from rap_edge.runtime.session.session import Session
from rap_edge.runtime.session.turns import Turns
from rap_edge.runtime.spec import ModelSpec

VIEWERS = (1, 2, 3, 4)
CHUNKS = 4
LANES = (1, 2, 4)
LANES_HEAD = (
    "| viewers side by side | ms per chunk | frames/s | times as fast as in turn | frames |\n|--:|--:|--:|--:|---|"
)


def rendered(avatar: Avatar, viewers: int) -> tuple[float, tuple[np.ndarray, ...]]:
    """Seconds in which each of `viewers` sessions, which never pause, gets a chunk; and their frames."""
    with ExitStack() as opened:
        sessions = [opened.enter_context(avatar.session(seed=seed)) for seed in range(viewers)]
        started = time.perf_counter()
        cost = measure_chunks(sessions, CHUNKS - 1)
        return (time.perf_counter() - started) / CHUNKS, cost.frames


def lanes_rows(spec: ModelSpec, reference: Reference, maker: Callable[[int], LoopMaker]) -> Iterator[str]:
    """Rows of `LANES_HEAD`: as many sessions as lanes, all rendering at the same time."""
    first: ChunkCost | None = None
    for count in LANES:
        turns, new_loop = Turns(count), maker(count)
        with ExitStack() as opened:
            loops = [new_loop(spec, reference, seed) for seed in range(count)]
            sessions = [opened.enter_context(Session(spec, loop, spec.sample_rate, turns)) for loop in loops]
            cost = measure_chunks(sessions, 5)
        first = first or cost
        rates = [lanes * spec.new_frames / seconds for lanes, seconds in ((1, first.seconds), (count, cost.seconds))]
        same = np.array_equal(first.frames[0], cost.frames[0])
        yield (
            f"| {count} | {1e3 * cost.seconds:.1f} | {rates[1]:.0f} | {rates[1] / rates[0]:.2f} "
            f"| {'the same bits' if same else 'OTHER FRAMES'} |"
        )


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
