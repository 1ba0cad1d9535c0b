"""The memory of this machine."""

from __future__ import annotations

import math
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


def system_memory(file: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """Bytes of memory, and those that are free for a new program; None where the system does not tell as Linux does."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {key: int(value.split()[0]) << 10 for key, _, value in (line.partition(":") for line in lines)}
    return (sizes["MemTotal"], sizes["MemAvailable"]) if "MemAvailable" in sizes else None


def as_gib(count: int) -> str:
    """Bytes for people: GiB, or MiB below one."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{math.ceil(count / MIB)} MiB"
