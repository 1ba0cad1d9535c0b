"""How many boxes render at the same time, and with how many cores each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rap_edge.runtime.bundle.manifest import Manifest
from rap_edge.runtime.engines.cpu_memory import plan_cpu_memory

# Python, ONNX Runtime and the codecs, before any weight.
_OF_ITS_OWN = 300 << 20


@dataclass(frozen=True)
class Machine:
    """What a machine of the cluster has.

    Attributes:
        cores: that Ray may use.
        memory: free bytes; None is unknown.
        gpus: of them.
    """

    cores: int
    memory: int | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class Sizing:
    """Boxes, and threads of each."""

    boxes: int
    threads: int


def sizing(
    machines: Sequence[Machine], need: int, boxes: int | None, threads: int | None, gpu_share: float = 0.0
) -> Sizing:
    """As many boxes as cores, memory and GPUs hold, with the cores divided among them.

    One thread each renders the most clips in an hour, since threads of one engine wait for each other; what is left for
    more is what memory does not hold more boxes for.

    Args:
        machines: of the cluster, one at least.
        need: bytes of memory that a box takes, see `memory_need`.
        boxes: as asked for; None finds out.
        threads: of a box, as asked for; None finds out.
        gpu_share: GPUs of a box.
    """
    fitting = [_fitting(machine, need, threads or 1, gpu_share) for machine in machines]
    count = max(1, sum(fitting)) if boxes is None else boxes
    if threads is None:
        if boxes is None:
            shares = [machine.cores // held for machine, held in zip(machines, fitting, strict=True) if held]
        else:
            shares = [sum(machine.cores for machine in machines) // boxes]
        threads = max(1, min([*shares, *(machine.cores for machine in machines if machine.cores)]))
    return Sizing(count, threads)


def memory_need(manifest: Manifest) -> int:
    """Bytes that a box is expected to take: twice what the graphs take at the very least, and its process.

    Raises:
        BundleError: the graphs are not those of the spec.
    """
    return _OF_ITS_OWN + 2 * plan_cpu_memory(manifest).total()


def _fitting(machine: Machine, need: int, threads: int, gpu_share: float) -> int:
    limits = [machine.cores // threads]
    if machine.memory is not None:
        limits.append(machine.memory // need)
    if gpu_share:
        limits.append(int(machine.gpus / gpu_share))
    return min(limits)
