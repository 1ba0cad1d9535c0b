"""The backends by name, one file each: a new one is a file with the names of `backend.Backend` and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import onnxruntime_engine, openvino_engine, tensorrt_engine
from .backend import Backend

DEFAULT = "onnxruntime"
BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        DEFAULT: onnxruntime_engine,
        "openvino": openvino_engine,
        "tensorrt-rtx": tensorrt_engine,
        "tensorrt": tensorrt_engine,
    }
)
