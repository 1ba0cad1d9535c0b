"""The sound that goes out with the picture: the source's own, in the form that the outlet takes, cut by time."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .convert import to_mono
from .resampler import Resampler

Samples = NDArray[np.float32]


class Soundtrack:
    """A queue of samples that come in the form of a source and go in the form of a sink or speaker.

    It holds no more than what was pushed and not yet taken.
    """

    def __init__(self, rate_in: int, channels_in: int, rate: int, channels: int) -> None:
        """Take sound of `rate_in` Hz and `channels_in` channels, give it in `rate` Hz and `channels` channels.

        More channels than go out are mixed to one, and one is repeated in all.

        Raises:
            AudioError: a rate is impossible.
        """
        self.rate, self.channels = rate, channels
        self._width = channels_in if channels_in <= channels else 1
        self._resamplers = [Resampler(rate_in, rate) for _ in range(self._width)]
        self._queue: deque[Samples] = deque()
        self._taken = 0

    def push(self, samples: Samples) -> None:
        """Add float32 [samples, channels_in]."""
        if samples.shape[1] != self._width:
            samples = to_mono(samples)[:, None]
        self._add([r.push(samples[:, i]) for i, r in enumerate(self._resamplers)])

    def finish(self) -> None:
        """End the source."""
        self._add([r.flush() for r in self._resamplers])

    def take_until(self, seconds: float) -> Samples:
        """What is to be heard before `seconds` and has not been taken: float32 [samples, channels]."""
        return self._take(round(seconds * self.rate) - self._taken)

    def take_rest(self) -> Samples:
        """Everything that is left: float32 [samples, channels]."""
        return self._take(sum(map(len, self._queue)))

    def _add(self, channels: list[Samples]) -> None:
        sound = np.stack(channels, axis=1)
        self._queue.append(sound if self._width == self.channels else np.repeat(sound, self.channels, axis=1))

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
