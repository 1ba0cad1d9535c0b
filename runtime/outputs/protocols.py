"""What goes out through what: a sink takes a rendering, a speaker and a display are played through.

The speaker is the master clock: a frame is shown when its own sound is heard, never the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..session.chunk import Mark


@dataclass(frozen=True)
class Showing:
    """What a display is told beside the frame.

    Attributes:
        pts: presentation time of the moment that is shown, in seconds since the stream's start.
        mark: how good the frame is for this moment.
    """

    pts: float
    mark: Mark


class Speaker(Protocol):
    """Plays queued sound and tells how much of it has been heard: the master clock.

    `write` and `played` are called from one thread, the one that runs the player. A device that goes away and comes
    back is the speaker's own business: meanwhile `played` stands still, or goes on as if it were heard.

    Attributes:
        rate: samples per second that it takes.
        channels: 1 or 2.
    """

    rate: int
    channels: int

    def write(self, samples: NDArray[np.float32]) -> None:
        """Queue float32 [samples, channels] in -1..1 and return at once; the player keeps the queue below 0.3 s.

        Raises:
            OutputError: the device is gone for good.
        """

    @property
    def played(self) -> float:
        """Seconds of the written sound that have left the loudspeaker, device latency subtracted.

        Counts written samples only: with an empty queue it stands still, whatever the device plays meanwhile. It
        never falls, never exceeds what was written, and may move in steps (of a device buffer): the player smooths it.
        """

    def close(self) -> None:
        """Stop at once and let go of the device; may be called twice."""


class Display(Protocol):
    """Shows frames. Every method is called in the thread that runs the player."""

    def show(self, frame: NDArray[np.uint8], showing: Showing) -> None:
        """Show uint8 [H, W, 3] RGB now; returns without waiting for more than a screen refresh.

        The array is read-only and stays valid after the call. A `HELD` moment is shown once, at its start.

        Raises:
            OutputError: it cannot be shown.
        """

    def poll(self) -> bool:
        """Handle waiting events; False once the viewer has closed the display. Called at least every 20 ms."""

    def close(self) -> None:
        """Let go of the window or device; may be called twice."""


class SilentSpeaker:
    """A speaker without a device, for pictures alone: sound is 'heard' at the pace of the clock."""

    def __init__(self, rate: int = 48000, channels: int = 1, clock: Callable[[], float] = monotonic) -> None:
        """Take sound of `rate` Hz; `clock` gives seconds."""
        self.rate, self.channels = rate, channels
        self._clock = clock
        self._written = self._heard = 0.0
        self._asked = clock()

    def write(self, samples: NDArray[np.float32]) -> None:
        """Queue float32 [samples, channels]."""
        self._advance()
        self._written += len(samples) / self.rate

    @property
    def played(self) -> float:
        """Seconds of the written sound for which there was time."""
        self._advance()
        return self._heard

    def close(self) -> None:
        """Nothing to let go of."""

    def _advance(self) -> None:
        now = self._clock()
        self._heard = min(self._heard + now - self._asked, self._written)
        self._asked = now


class Sink(Protocol):
    """Takes frames and their sound in order of presentation.

    Attributes:
        rate: samples per second that it takes.
        channels: 1 or 2.
    """

    rate: int
    channels: int

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        """Add frames [T, H, W, 3] RGB and the sound [samples, channels] that goes with them; either may be empty.

        Raises:
            OutputError: they cannot be written.
        """

    def close(self) -> None:
        """Finish; raises `OutputError` if what was written cannot be completed."""
