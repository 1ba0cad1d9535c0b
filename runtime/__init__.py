"""The torch-free runtime: spec, bundle, engines, chunk loop, audio, video, live playing and `rap-run`.

The names in `__all__` are the stable interface, under semantic versioning. They are resolved on first use, so that
importing the package loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import AsyncSession
    from .avatar import Avatar
    from .bundle import Bundle
    from .chunk import Chunk
    from .device_frames import DeviceFrames
    from .errors import (
        AudioError,
        BundleError,
        EngineError,
        NumericalError,
        OutputError,
        PortraitError,
        RapEdgeError,
        SessionError,
        SpecError,
    )
    from .live import LiveSource, play
    from .live_report import LiveMeter, LiveTimes
    from .marks import Mark
    from .outlets import Display, Showing, SilentSpeaker, Speaker
    from .overload import Decision, Overload
    from .player import Player
    from .session import Session
    from .sink import Sink
    from .spec import ModelSpec

__version__ = "0.1.0"
"""Version of the interface and of the package."""

_HOMES = {
    ".aio": ("AsyncSession",),
    ".avatar": ("Avatar",),
    ".bundle": ("Bundle",),
    ".chunk": ("Chunk",),
    ".device_frames": ("DeviceFrames",),
    ".errors": (
        "AudioError",
        "BundleError",
        "EngineError",
        "NumericalError",
        "OutputError",
        "PortraitError",
        "RapEdgeError",
        "SessionError",
        "SpecError",
    ),
    ".live": ("LiveSource", "play"),
    ".live_report": ("LiveMeter", "LiveTimes"),
    ".marks": ("Mark",),
    ".outlets": ("Display", "Showing", "SilentSpeaker", "Speaker"),
    ".overload": ("Decision", "Overload"),
    ".player": ("Player",),
    ".session": ("Session",),
    ".sink": ("Sink",),
    ".spec": ("ModelSpec",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncSession",
    "AudioError",
    "Avatar",
    "Bundle",
    "BundleError",
    "Chunk",
    "Decision",
    "DeviceFrames",
    "Display",
    "EngineError",
    "LiveMeter",
    "LiveSource",
    "LiveTimes",
    "Mark",
    "ModelSpec",
    "NumericalError",
    "OutputError",
    "Overload",
    "Player",
    "PortraitError",
    "RapEdgeError",
    "Session",
    "SessionError",
    "Showing",
    "SilentSpeaker",
    "Sink",
    "Speaker",
    "SpecError",
    "__version__",
    "play",
]


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
