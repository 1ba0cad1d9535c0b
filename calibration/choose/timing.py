"""What a layer costs on this CPU, in fp32 and in 8 bits.

CPU seconds of one thread, the least of interleaved runs: other work on the machine delays a run but adds little to
its CPU time. Layers of the same kind and shapes are measured together, because one alone is below the noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rap_edge.runtime.engines.interface import Array

from ..observe.layers import Layer
from ..quantize.variants import GraphPlan, Variants
from ..record.running import bound

FEWEST_REPEATS, MOST_REPEATS = 5, 40
SECONDS_PER_VARIANT = 1.5


@dataclass(frozen=True)
class Gain:
    """What 8 bits save.

    Attributes:
        seconds: per chunk, of one layer; negative if 8 bits are slower.
        noise: seconds that two measurements of the same graph differ by, per layer.
        count: layers that were measured together.
    """

    seconds: float
    noise: float
    count: int

    @property
    def pays(self) -> bool:
        """Whether the saving is above the noise."""
        return self.seconds > self.noise


def least_times(runs: Sequence[Callable[[], None]], seconds: float = SECONDS_PER_VARIANT) -> list[float]:
    """Least CPU seconds of this thread for each run, in turn, after one run that warms up.

    Args:
        runs: every one is called equally often, in turn.
        seconds: about how long each of them is measured.
    """
    least = [float("inf")] * len(runs)
    spent, rounds = 0.0, -1
    while rounds < FEWEST_REPEATS or (spent < seconds * len(runs) and rounds < MOST_REPEATS):
        for index, run in enumerate(runs):
            started = time.thread_time()
            run()
            taken = time.thread_time() - started
            spent += taken
            if rounds >= 0:
                least[index] = min(least[index], taken)
        rounds += 1
    return least


def kinds(layers: Sequence[Layer], shapes: Mapping[str, object]) -> list[list[Layer]]:
    """Layers of the same operator and shapes, in order of their first."""
    groups: dict[object, list[Layer]] = {}
    for layer in layers:
        groups.setdefault((layer.op, layer.weights, shapes.get(layer.input), shapes.get(layer.weight)), []).append(
            layer
        )
    return list(groups.values())


def measure_kind(
    variants: Variants,
    plan: GraphPlan,
    kind: Sequence[Layer],
    inputs: Mapping[str, Array],
    runs_per_chunk: int,
    seconds: float = SECONDS_PER_VARIANT,
) -> Gain:
    """Time the graph with every layer in 8 bits, and with all but this kind: the difference is what the kind saves."""
    everything = {layer.node for layer in plan.layers}
    without = everything - {layer.node for layer in kind}
    engines = [variants.engine(plan.name, nodes, threads=1) for nodes in (everything, everything, without)]
    full, again, rest = least_times([bound(variants.spec, engine, inputs).run for engine in engines], seconds)
    share = runs_per_chunk / len(kind)
    return Gain((rest - min(full, again)) * share, abs(full - again) * share, len(kind))
