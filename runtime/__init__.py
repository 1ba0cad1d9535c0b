"""The torch-free runtime: spec, bundle, engines, chunk loop, audio, video, live playing and `rap-run`.

The names in `__all__` are the stable interface, under semantic versioning. They are resolved on first use, so that
importing the package loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .avatar import Avatar
    from .bundle.bundle import Bundle
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
    from .inputs.audio_file import AudioFile, read_audio
    from .inputs.convert import AudioWarning, to_mono
    from .inputs.microphone import Microphone
    from .inputs.picture.portrait import PortraitWarning
    from .inputs.source import LiveSource
    from .loop.device_frames import DeviceFrames
    from .outputs.loudspeaker import Loudspeaker
    from .outputs.mp4_writer import Mp4Writer
    from .outputs.play import play
    from .outputs.player import Player
    from .outputs.protocols import Display, Showing, SilentSpeaker, Sink, Speaker
    from .outputs.render import render
    from .outputs.window import Window
    from .reports.live_report import LiveMeter, LiveTimes
    from .session.async_session import AsyncSession
    from .session.chunk import Chunk, Mark
    from .session.overload import Decision, Overload
    from .session.session import Session
    from .session.stream import AvatarStream
    from .session.stream_core import Ended, Interrupted, Rendering, Started, StreamEvent, StreamFrame
    from .spec import ModelSpec

__version__ = "0.1.0"
"""Version of the interface and of the package."""

_HOMES = {
    ".avatar": ("Avatar",),
    ".bundle.bundle": ("Bundle",),
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
    ".inputs.audio_file": ("AudioFile", "read_audio"),
    ".inputs.convert": ("AudioWarning", "to_mono"),
    ".inputs.microphone": ("Microphone",),
    ".inputs.picture.portrait": ("PortraitWarning",),
    ".inputs.source": ("LiveSource",),
    ".loop.device_frames": ("DeviceFrames",),
    ".outputs.loudspeaker": ("Loudspeaker",),
    ".outputs.mp4_writer": ("Mp4Writer",),
    ".outputs.play": ("play",),
    ".outputs.player": ("Player",),
    ".outputs.protocols": ("Display", "Showing", "SilentSpeaker", "Sink", "Speaker"),
    ".outputs.render": ("render",),
    ".outputs.window": ("Window",),
    ".reports.live_report": ("LiveMeter", "LiveTimes"),
    ".session.async_session": ("AsyncSession",),
    ".session.chunk": ("Chunk", "Mark"),
    ".session.overload": ("Decision", "Overload"),
    ".session.session": ("Session",),
    ".session.stream": ("AvatarStream",),
    ".session.stream_core": ("Ended", "Interrupted", "Rendering", "Started", "StreamEvent", "StreamFrame"),
    ".spec": ("ModelSpec",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncSession",
    "AudioError",
    "AudioFile",
    "AudioWarning",
    "Avatar",
    "AvatarStream",
    "Bundle",
    "BundleError",
    "Chunk",
    "Decision",
    "DeviceFrames",
    "Display",
    "Ended",
    "EngineError",
    "Interrupted",
    "LiveMeter",
    "LiveSource",
    "LiveTimes",
    "Loudspeaker",
    "Mark",
    "Microphone",
    "ModelSpec",
    "Mp4Writer",
    "NumericalError",
    "OutputError",
    "Overload",
    "Player",
    "PortraitError",
    "PortraitWarning",
    "RapEdgeError",
    "Rendering",
    "Session",
    "SessionError",
    "Showing",
    "SilentSpeaker",
    "Sink",
    "Speaker",
    "SpecError",
    "Started",
    "StreamEvent",
    "StreamFrame",
    "Window",
    "__version__",
    "play",
    "read_audio",
    "render",
    "to_mono",
]


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
