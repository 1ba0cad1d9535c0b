"""The sound that goes into the video: the source's own, cut to the frames by presentation time."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .convert import to_mono
from .resampler import Resampler

Samples = NDArray[np.float32]


class Soundtrack:
    """A queue of mono or stereo samples at a rate that the video can hold.

    It holds no more than what was pushed and not yet taken.
    """

    def __init__(self, rate_in: int, channels_in: int, rates: tuple[int, ...]) -> None:
        """Take sound of `rate_in` Hz and `channels_in` channels; more than two channels are mixed to one.

        Args:
            rate_in: of the source, in Hz.
            channels_in: of the source.
            rates: what the video can hold, in Hz; another rate becomes the highest of them.

        Raises:
            AudioError: the rate is impossible.
        """
        self.rate = rate_in if rate_in in rates else max(rates)
        self.channels = channels_in if channels_in <= 2 else 1
        self._resamplers = [Resampler(rate_in, self.rate) for _ in range(self.channels)]
        self._queue: deque[Samples] = deque()
        self._taken = 0

    def push(self, samples: Samples) -> None:
        """Add float32 [samples, channels_in]."""
        if samples.shape[1] != self.channels:
            samples = to_mono(samples)[:, None]
        self._queue.append(np.stack([r.push(samples[:, i]) for i, r in enumerate(self._resamplers)], axis=1))

    def finish(self) -> None:
        """End the source."""
        self._queue.append(np.stack([r.flush() for r in self._resamplers], axis=1))

    def take_until(self, seconds: float) -> Samples:
        """What is to be heard before `seconds` and has not been taken: float32 [samples, channels]."""
        return self._take(round(seconds * self.rate) - self._taken)

    def take_rest(self) -> Samples:
        """Everything that is left: float32 [samples, channels]."""
        return self._take(sum(map(len, self._queue)))

    def _take(self, count: int) -> Samples:
        parts = [np.empty((0, self.channels), np.float32)]
        while count > 0 and self._queue:
            block = self._queue.popleft()
            parts.append(block[:count])
            if len(block) > count:
                self._queue.appendleft(block[count:])
            count -= len(parts[-1])
            self._taken += len(parts[-1])
        return np.concatenate(parts)
