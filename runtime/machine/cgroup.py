"""What the container that this process runs in may take: the limits of Linux's control groups, versions 1 and 2.

A group is held to its own limits and to those of all groups above it, so every group on the way up is asked. Where
there are no control groups, or they cannot be read, there is no limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
# Larger than any memory: version 1 has no word for "no limit".
_NO_LIMIT = 1 << 60


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of time that the process may take, such as 0.5; None without a limit.

    Args:
        root: of the file system, so that a test can bring its own.
    """
    found = []
    for group in _groups(root, "cpu"):
        # Version 2 keeps both numbers in one file.
        words = _read(group / "cpu.max") or _read(group / "cpu.cfs_quota_us") + _read(group / "cpu.cfs_period_us")
        quota, period = [_number(word) for word in words.split()] or (None, None)
        if quota and period:
            found.append(quota / period)
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> tuple[int, int] | None:
    """Bytes that the process may take with all others of its group, and those that are left; None without a limit.

    Args:
        root: of the file system, so that a test can bring its own.
    """
    limits, left = [], []
    for group in _groups(root, "memory"):
        limit = _number(_read(group / "memory.max") or _read(group / "memory.limit_in_bytes"))
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _number(_read(group / "memory.current") or _read(group / "memory.usage_in_bytes")) or 0
        limits.append(limit)
        left.append(max(limit - max(used - _reclaimable(_read(group / "memory.stat")), 0), 0))
    return (min(limits), min(left)) if limits else None


def _reclaimable(stat: str) -> int:
    """Bytes that the system takes back before it refuses any: contents of files that nobody has used for a while."""
    sizes = dict(line.split(maxsplit=1) for line in stat.splitlines())
    # Version 1 counts a group with those below it under a name of its own.
    return int(sizes.get("total_inactive_file", sizes.get("inactive_file", 0)))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups that the process is in, from the lowest to the highest that can be seen from here."""
    paths: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in _read(root / "proc/self/mountinfo").splitlines():
        place, _, kind = line.partition(" - ")
        top, mount = (_unescaped(word) for word in place.split()[3:5])
        # Version 2 has one tree for all controllers, and no name for it.
        system, _, options = kind.split()
        name = {"cgroup": controller, "cgroup2": ""}.get(system)
        if name not in paths or name not in ("", *options.split(",")):
            continue
        group = PurePosixPath(paths[name])
        # In a container the highest group that can be seen is its own, whatever path that has outside.
        inside = group.relative_to(top).parts if group.is_relative_to(top) and ".." not in group.parts else ()
        for depth in range(len(inside), -1, -1):
            yield root.joinpath(mount.lstrip("/"), *inside[:depth])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """A count; None for what stands for no limit: nothing, "max" or a negative one."""
    return int(text) if text.strip().isdecimal() else None


def _unescaped(word: str) -> str:
    return re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), word)
