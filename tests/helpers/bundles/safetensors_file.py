"""Safetensors files byte by byte, good ones and such as no library writes."""

from __future__ import annotations

import json
from typing import Any


def safetensors_file(header: Any, data: bytes = b"") -> bytes:
    """A file of this header, JSON text or what becomes it, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: Any = "F32") -> dict[str, Any]:
    """A tensor of 32-bit numbers in `begin`..`end`, unless something else is said."""
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}
