"""The machine code inside a shared library: where it lies for which GPU, and a way to blank what is not needed.

A fat binary is a header (magic 0xBA55ED50, version, size of the header, size of the rest) and entries: kind (1 PTX, 2
machine code), size of the entry's header, size of its payload, and at byte 28 the compute capability. The driver reads
the entry of the GPU that is there and no other, so the payloads of others may be zeros, which compress to nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = struct.pack("<I", 0xBA55ED50)
_KINDS = (1, 2, 8, 16, 64)
MACHINE_CODE = 2


@dataclass(frozen=True)
class Entry:
    """One entry: its kind, its compute capability without the dot, and where its payload lies."""

    kind: int
    capability: int
    offset: int
    size: int


def entries(data: bytes | bytearray) -> Iterator[Entry]:
    """Every entry of every fat binary in `data`, in order; what only looks like one is passed over."""
    at = data.find(_MAGIC)
    while at >= 0:
        end = at + len(_MAGIC)
        if at + 16 <= len(data):
            version, header, size = struct.unpack_from("<HHQ", data, at + 4)
            if version == 1 and header == 16 and at + header + size <= len(data):
                end = at + header + size
                yield from _of_one(data, at + header, end)
        at = data.find(_MAGIC, end)


def _of_one(data: bytes | bytearray, at: int, end: int) -> Iterator[Entry]:
    while at + 32 <= end:
        kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
        if kind not in _KINDS or header < 32 or at + header + size > end:
            return
        (capability,) = struct.unpack_from("<I", data, at + 28)
        yield Entry(kind, capability, at + header, size)
        at += header + size
