"""The sinks that write files, by the suffix of the name that they are given: a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from ..errors import OutputError
from ..inputs.source import LiveSource
from ..spec import ModelSpec
from .mp4_writer import Mp4Writer
from .protocols import Sink


class FileSink(Sink, AbstractContextManager["FileSink"], Protocol):
    """A sink that writes a file; as a context manager it leaves none where the block fails before the first frame."""

    @property
    def frames(self) -> int:
        """Frames written so far."""


class Opener(Protocol):
    """Opens a sink."""

    def __call__(self, path: str | Path, spec: ModelSpec, source: LiveSource, *, fragmented: bool = False) -> FileSink:
        """Open a file for what a model makes of a source; see `Mp4Writer.for_source`."""


SINKS: Mapping[str, Opener] = MappingProxyType(
    {".mp4": Mp4Writer.for_source, ".m4v": Mp4Writer.for_source, ".mov": Mp4Writer.for_source}
)
UNNAMED = ".mp4"
"""What a name without a suffix gets."""


def open_sink(path: str | Path, spec: ModelSpec, source: LiveSource, *, fragmented: bool = False) -> FileSink:
    """The sink that writes files of that name.

    Args:
        path: where the file will be.
        spec: of the model that is rendered.
        source: of the sound.
        fragmented: leave the complete file in fragments, where the sink knows any.

    Raises:
        OutputError: no sink writes such files, or the file cannot be created.
    """
    suffix = Path(path).suffix.lower() or UNNAMED
    if suffix not in SINKS:
        raise OutputError(f"{str(path)!r} is no name of a video; choose one of the suffixes {', '.join(SINKS)}.")
    return SINKS[suffix](path, spec, source, fragmented=fragmented)
