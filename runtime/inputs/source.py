"""Where sound comes from: a file, a pipe or a microphone; the loops need no more than this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .convert import Samples


class LiveSource(Protocol):
    """Gives sound in order, once, and tells what form it has."""

    @property
    def rate(self) -> int:
        """Samples per second."""

    @property
    def channels(self) -> int:
        """Channels of every block."""

    @property
    def live(self) -> bool:
        """It is captured in real time, so that latency must be held; a file waits."""

    def __iter__(self) -> Iterator[Samples]:
        """Blocks float32 [samples, channels] in -1..1, of any length but 0; waits for sound, ends with the stream.

        Raises:
            AudioError: NaN or Inf, or the source fails.
        """

    def close(self) -> None:
        """Let go of the device or file; may be called from any thread, and wakes one that waits for a block."""
