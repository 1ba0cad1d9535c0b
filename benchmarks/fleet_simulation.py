"""A fleet without a box: the real `Placement` under a virtual clock, and how long visitors wait for a place.

    python benchmarks/fleet_simulation.py -o docs/fleet_simulation.svg

1,000 boxes of four places and 100,000 arrivals an hour, for an hour, with visits of several lengths, so that the places
are enough or not; a box dies every minute. Then what a placement costs with 100, 1,000 and 10,000 boxes. Visitors come
at random (Poisson) and stay at random (exponential), take a second or so from the ticket to the box, one in fifty never
gets there, and who is turned away comes again when they were told to.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rap_edge.fleet.placement import BoxStatus, FullHouseError, Placement

BOXES, PLACES, ARRIVALS = 1_000, 4, 100_000
VISITS = (120.0, 137.0, 144.0, 152.0)
FLEETS = (100, 1_000, 10_000)
STATUS_EVERY, ANSWER_AFTER = 1.0, 0.02
NOTICED_AFTER, REPLACED_AFTER = 1.0, 30.0
TRAVEL = (0.2, 2.0)
NEVER_COME = 0.02
PERCENTILES = (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))
COLOURS = ("#16805a", "#2f6fed", "#b58900", "#c2402d")
INK, DIM = "#1d2433", "#667085"


@dataclass
class SimulatedBox:
    """Who is there."""

    inside: set[str] = field(default_factory=set)
    alive: bool = True


@dataclass
class Seen:
    """What happened.

    Attributes:
        waits: seconds from the first question to the ticket, of all who came after the start.
        moved: seconds from the death of a box to the next ticket, of all who were there.
        placements: nanoseconds of processor time that each reservation took.
        unused: tickets that nobody came with.
        too_many: visitors who came with a good ticket and found every place taken.
    """

    waits: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    placements: list[int] = field(default_factory=list)
    unused: int = 0
    too_many: int = 0


class Simulation:
    """Boxes, visitors and the dispatcher's placement, event by event."""

    def __init__(
        self, boxes: int, arrivals_per_hour: float, visit_seconds: float, *, deaths_per_hour: float = 0.0, seed: int = 0
    ) -> None:
        """Start with as many visitors as there will be on average, as far as there are places."""
        self.seen = Seen()
        self._placement = Placement()
        self._random = random.Random(seed)
        self._boxes: dict[str, SimulatedBox] = {}
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count, self._now = 0, 0.0
        self._gap, self._visit = 3600.0 / arrivals_per_hour, visit_seconds
        for _ in range(boxes):
            self._start()
        # The boxes have answered once.
        self.run(STATUS_EVERY + ANSWER_AFTER)
        for _ in range(min(round(visit_seconds / self._gap), boxes * PLACES)):
            self._ask(None, None)
        self._after(0.0, self._arrive)
        if deaths_per_hour:
            self._after(0.0, self._die, 3600.0 / deaths_per_hour)

    def run(self, seconds: float) -> Seen:
        """Let so much time pass; returns all that has happened."""
        ends = self._now + seconds
        while self._events and self._events[0][0] <= ends:
            self._now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        self._now = ends
        return self.seen

    def _after(self, seconds: float, what: Callable[..., None], *arguments: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (self._now + seconds, self._count, what, arguments))

    def _start(self) -> None:
        self._count += 1
        name = f"box{self._count}"
        self._boxes[name] = SimulatedBox()
        self._placement.join(name)
        self._after(self._random.uniform(0.0, STATUS_EVERY), self._tell, name)

    def _tell(self, name: str) -> None:
        """The box answers, and is asked again."""
        box = self._boxes[name]
        if box.alive:
            self._placement.heard(name, BoxStatus(PLACES, box.inside), self._now - ANSWER_AFTER)
            self._after(STATUS_EVERY, self._tell, name)

    def _arrive(self) -> None:
        self._after(self._random.expovariate(1.0 / self._gap), self._arrive)
        self._ask(self._now, self.seen.waits)

    def _ask(self, since: float | None, waits: list[float] | None) -> None:
        """Ask for a place, and again when told to."""
        self._count += 1
        ticket = f"t{self._count}"
        started = time.thread_time_ns()
        try:
            given = self._placement.reserve(ticket, self._now)
        except FullHouseError as full:
            self._after(full.retry_after, self._ask, since, waits)
            return
        self.seen.placements.append(time.thread_time_ns() - started)
        if since is not None and waits is not None:
            waits.append(self._now - since)
        if self._random.random() < NEVER_COME:
            self.seen.unused += 1
        else:
            self._after(self._random.uniform(*TRAVEL), self._enter, given.box, ticket)

    def _enter(self, name: str, ticket: str) -> None:
        box = self._boxes[name]
        if not box.alive:
            self._ask(self._now, self.seen.moved)
        elif len(box.inside) >= PLACES:
            self.seen.too_many += 1
        else:
            box.inside.add(ticket)
            self._after(self._random.expovariate(1.0 / self._visit), self._leave, name, ticket)

    def _leave(self, name: str, ticket: str) -> None:
        self._boxes[name].inside.discard(ticket)

    def _die(self, every: float) -> None:
        self._after(self._random.expovariate(1.0 / every), self._die, every)
        name = self._random.choice([name for name, box in self._boxes.items() if box.alive])
        box = self._boxes[name]
        box.alive = False
        self._after(NOTICED_AFTER, self._placement.lost, name)
        self._after(REPLACED_AFTER, self._start)
        for _ in box.inside:
            # Its page notices within a second or two.
            self._after(self._random.uniform(1.0, 2.0), self._ask, self._now, self.seen.moved)
        box.inside.clear()


def scan_nanoseconds(boxes: int, rounds: int = 30) -> float:
    """What a placement would cost that looks at every box, the median."""
    free = {f"box{number}": random.Random(number).randrange(PLACES) for number in range(boxes)}
    times = []
    for _ in range(rounds):
        started = time.thread_time_ns()
        max(free, key=free.__getitem__)
        times.append(time.thread_time_ns() - started)
    return float(np.median(times))


def waiting(visit_seconds: float, hours: float) -> dict[str, object]:
    """An hour of the large fleet, with visits of one length."""
    seen = Simulation(BOXES, ARRIVALS, visit_seconds, deaths_per_hour=60.0).run(hours * 3600.0)
    waits, moved = np.array(seen.waits), np.array(seen.moved)
    return {
        "load": round(ARRIVALS * visit_seconds / 3600.0 / (BOXES * PLACES), 3),
        "visit_seconds": visit_seconds,
        "placed": waits.size,
        "at_once": round(float((waits == 0).mean()), 4),
        "wait_s": {name: round(float(np.percentile(waits, q)), 1) for name, q in PERCENTILES},
        "moved": moved.size,
        "moved_s": {name: round(float(np.percentile(moved, q)), 1) for name, q in PERCENTILES},
        "tickets_unused": seen.unused,
        "too_many": seen.too_many,
        "waits": waits,
    }


def cost(boxes: int, seconds: float) -> dict[str, float]:
    """What a placement costs in a fleet of so many boxes with the same load."""
    seen = Simulation(boxes, 100.0 * boxes, 120.0).run(seconds)
    times = np.array(seen.placements) / 1e3
    return {
        "boxes": boxes,
        "placements": times.size,
        "p50_us": round(float(np.percentile(times, 50)), 2),
        "p99_us": round(float(np.percentile(times, 99)), 2),
        "scan_us": round(scan_nanoseconds(boxes) / 1e3, 2),
    }


def draw(found: list[dict[str, object]], costs: list[dict[str, float]], out: Path) -> None:
    """Waiting times on the left, costs on the right."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    look = {"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": DIM, "svg.hashsalt": "fleet"}
    with rc_context(look | {"xtick.color": DIM, "ytick.color": DIM}):
        plot = Figure(figsize=(10.6, 5.2), layout="constrained")
        left, right = plot.subplots(1, 2)
        for colour, one in zip(COLOURS, found, strict=True):
            # Hundredths of a second are finer than the picture.
            waits, counts = np.unique(np.round(one["waits"], 2), return_counts=True)
            share = 100.0 * (1.0 - np.cumsum(counts) / counts.sum())
            told = f"{100 * one['load']:.0f} % of the places: {100 * one['at_once']:.0f} % wait not at all"
            left.step(waits, share, where="post", color=colour, lw=1.8, label=told)
        left.set(xscale="log", yscale="log", xlim=(1, None), ylim=(0.01, 100))
        left.set_xlabel("seconds until there is a place")
        left.set_ylabel("% of visitors who wait longer")
        left.set_title(f"{BOXES:,} boxes, {ARRIVALS:,} arrivals an hour", fontsize=11)
        left.legend(
            frameon=False, title="wanted on average", loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9
        )
        boxes = [one["boxes"] for one in costs]
        right.plot(boxes, [one["scan_us"] for one in costs], "o--", color=DIM, label="a look at every box, median")
        right.plot(boxes, [one["p99_us"] for one in costs], "o-", color=COLOURS[1], alpha=0.45, label="99th percentile")
        right.plot(boxes, [one["p50_us"] for one in costs], "o-", color=COLOURS[1], label="median")
        right.set(xscale="log", yscale="log")
        right.set_xlabel("boxes")
        right.set_ylabel("microseconds of processor time")
        right.set_title("What a placement costs", fontsize=11)
        right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
        plot.savefig(out, format=out.suffix[1:], metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    """Print the figures as JSON lines, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="an .svg or .png (needs matplotlib)")
    parser.add_argument("--hours", type=float, default=1.0, help="of every simulation (default: %(default)s)")
    arguments = parser.parse_args()
    found = []
    for visit in VISITS:
        found.append(waiting(visit, arguments.hours))
        print(json.dumps({name: value for name, value in found[-1].items() if name != "waits"}), flush=True)
    costs = []
    for boxes in FLEETS:
        costs.append(cost(boxes, min(60_000.0 / boxes, 600.0) + 20.0))
        print(json.dumps(costs[-1]), flush=True)
    if arguments.output is not None:
        draw(found, costs, arguments.output)


if __name__ == "__main__":
    main()
