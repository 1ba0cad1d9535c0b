"""Where sound comes from: a file, a pipe or a microphone; the loop needs no more than this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .convert import Samples


class Source(Protocol):
    """Gives sound in order, once, and tells what form it has.

    Attributes:
        rate: samples per second.
        channels: channels of every block.
        duration: length in seconds as far as it is known, else None.
        live: the sound arrives as fast as it is spoken, so that waiting for it costs no computing time.
    """

    @property
    def rate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def duration(self) -> float | None: ...

    @property
    def live(self) -> bool: ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Blocks float32 [samples, channels] in -1..1, of any length but 0; waits for sound, ends with the stream.

        Raises:
            AudioError: NaN or Inf, or the source fails.
        """

    def close(self) -> None:
        """Let go of the device or file; may be called from any thread and ends an iteration that waits."""


class LiveSource(Protocol):
    """Where sound comes from; see `Source`.

    Attributes:
        rate: samples per second.
        channels: of every block.
        live: it is captured in real time, so that latency must be held.
    """

    @property
    def rate(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def live(self) -> bool: ...

    def __iter__(self) -> Iterator[Samples]:
        """Blocks float32 [samples, channels] until the end; waits for what is not there yet."""

    def close(self) -> None:
        """End it; a thread that waits for a block is woken."""
