"""When a run of many visits looks at a process, and what it says of what it saw."""

from __future__ import annotations

from losses import verdict

GROWTH_MB = 20.0
_WARM_UP = 100

Look = tuple[float, tuple[int, int]]
"""Resident MiB, and open files and threads."""


def warm_up(count: int) -> int:
    """Visits before the first look."""
    return min(_WARM_UP, count // 2)


def looks(count: int) -> set[int]:
    """Before which of `count` visits to look: after the warm-up, at each quarter of the rest, and at the end."""
    first = warm_up(count)
    return {first + (count - first) * quarter // 4 for quarter in range(5)}


def judge(count: int, seen: list[Look], *, settled: bool) -> bool:
    """Print memory and handles over the looks, and whether they stayed; `settled` says that the handles did."""
    (warm, before), *later = seen
    growth, after, first = max(mb for mb, _ in later) - warm, later[-1][1], warm_up(count)
    print(f"resident          {warm:.1f} MiB after {first}, then {', '.join(f'{mb:.1f}' for mb, _ in later)}")
    print(f"files, threads    {before[0]}, {before[1]} after {first}; {after[0]}, {after[1]} after {count}")
    clean = growth < GROWTH_MB and settled
    return verdict(f"growth {growth:.1f} MiB, limit {GROWTH_MB:g}; no file and no thread more", clean)
