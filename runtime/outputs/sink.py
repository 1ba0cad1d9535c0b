"""Where rendered video goes: an mp4 file now; a window, a web page or a callback need no more than this."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sink(Protocol):
    """Takes frames and their sound in order of presentation."""

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        """Add frames [T, H, W, 3] RGB and the sound [samples, channels] that goes with them; either may be empty.

        Raises:
            OutputError: they cannot be written.
        """

    def close(self) -> None:
        """Finish; raises `OutputError` if what was written cannot be completed."""
