"""What of the machine this process may use: where a container has less than the machine, that counts."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ..checks.bounds import Whole
from .cgroup import ROOT, cpu_quota, memory_limit
from .system_memory import system_memory

# Of one engine; ONNX Runtime makes as many as it is told, until the process dies of it.
THREADS = Whole(1, 256)


def available_cores(root: Path = ROOT) -> int:
    """Cores that this process may use, at least 1; a share of a core counts as one.

    Args:
        root: of the file system with the container's limits, so that a test can bring its own.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cpu_quota(root)
    # Rounded up: two threads in one core and a half are 1.2 times as fast as one, in half a core 1.4 times slower.
    return cores if quota is None else min(cores, math.ceil(quota))


def available_memory(root: Path = ROOT) -> tuple[int, int] | None:
    """Bytes of memory that this process may use with all others, and those that are free; None where nobody tells.

    Args:
        root: as for `available_cores`.
    """
    known = [memory for memory in (system_memory(root / "proc/meminfo"), memory_limit(root)) if memory is not None]
    return (min(total for total, _ in known), min(free for _, free in known)) if known else None
