"""The memory of this machine."""

from __future__ import annotations

from pathlib import Path


def system_memory(file: Path = Path("/proc/meminfo")) -> tuple[int, int] | None:
    """Bytes of memory, and those that are free for a new program; None where the system does not tell as Linux does."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {key: int(value.split()[0]) << 10 for key, _, value in (line.partition(":") for line in lines)}
    return (sizes["MemTotal"], sizes["MemAvailable"]) if "MemAvailable" in sizes else None
