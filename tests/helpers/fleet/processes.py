"""The processes that a program has started, as Linux shows them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> set[int]:
    """All that a process and its children have started, and are still there."""
    parents: dict[int, int] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, more = set(), {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in more} - found
    return found - {pid}


def named(pids: set[int], name: str) -> set[int]:
    """Those whose title holds `name`."""
    return {pid for pid in pids if name in command(pid)}


def open_files(pid: int) -> Iterator[str]:
    """What a process has open."""
    with contextlib.suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(descriptor)


def listening(pids: set[int]) -> set[str]:
    """The addresses, as the kernel writes them, on which processes wait for others."""
    sockets = {file for pid in pids for file in open_files(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def command(pid: int) -> str:
    """Its title, or the words that it was started with; "" where it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
