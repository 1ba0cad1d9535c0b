"""The torch-free runtime: spec, bundle, engines, chunk loop, audio, video and `rap-run`.

`Avatar`, `Session` and `Chunk` are resolved on first use, so that importing the package loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .avatar import Avatar
    from .chunk import Chunk
    from .session import Session

__all__ = ["Avatar", "Chunk", "Session"]

_HOMES = {"Avatar": ".avatar", "Chunk": ".chunk", "Session": ".session"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
