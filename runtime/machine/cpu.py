"""What a processor can do that decides which precision is fast on it, as far as the system tells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# By the names that Linux gives them in /proc/cpuinfo: x86 flags, then those of ARM.
_NAMES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI",
    "avx512_vnni": "VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "int8 matrix product",
}
# Instructions that multiply 8-bit numbers fast.
FAST_INT8 = frozenset({"VNNI", "AMX", "dot product", "int8 matrix product"})


def cpu_features(cpuinfo: str | None = None) -> tuple[str, ...] | None:
    """Names of the instruction sets that matter here, such as "AVX2" or "VNNI"; None where the system does not tell.

    Args:
        cpuinfo: the text of Linux's /proc/cpuinfo; None reads it.
    """
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return _known(value.split())
    return None


def _known(flags: Iterable[str]) -> tuple[str, ...]:
    present = set(flags)
    return tuple(dict.fromkeys(name for flag, name in _NAMES.items() if flag in present))
