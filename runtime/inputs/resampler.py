"""A streaming resampler.

PyAV (FFmpeg's libswresample) is imported when rates differ, not before.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .convert import Samples

if TYPE_CHECKING:
    from av.filter import Graph

MIN_RATE, MAX_RATE = 1_000, 768_000
_TAPS = 64
_BLOCKS_PER_SECOND = 100


class Resampler:
    """Streaming mono resampler over libswresample, free of delay and of any trace of how the input was split.

    Output sample i is the input at time i / rate_out; before the start and after the end there is silence. The
    input is cut into blocks of 10 ms here, so libswresample sees the same blocks for any split of the same samples.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        """Prepare to resample from `rate_in` to `rate_out` (Hz); equal rates pass the samples through.

        Raises:
            AudioError: a rate outside 1 kHz to 768 kHz.
        """
        for rate in (rate_in, rate_out):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(f"A sample rate of {rate} Hz is not supported; pass {MIN_RATE} to {MAX_RATE} Hz.")
        self._rate_in, self._rate_out = rate_in, rate_out
        self._block = np.empty(max(rate_in // _BLOCKS_PER_SECOND, 1), np.float32)
        self._filled = self._fed = self._taken = self._given = self._skip = 0
        self._finished = False
        self._graph: Graph | None = None
        if rate_in != rate_out:
            self._graph = _swresample(rate_in, rate_out)
            # libswresample mirrors the first samples; real silence in front of them, a whole number of output
            # samples long, keeps the start exact.
            step = rate_in // math.gcd(rate_in, rate_out)
            reach = _TAPS * max(1.0, rate_in / rate_out)
            self._padding = np.zeros(step * math.ceil(reach / step), np.float32)
            self._skip = self._padding.size * rate_out // rate_in
            self._emit(self._push_through(self._padding))

    def push(self, pcm: Samples) -> Samples:
        """Add float32 [samples]; returns the float32 [samples] that are ready, which may be none.

        Raises:
            AudioError: after `flush`.
        """
        if self._finished:
            raise AudioError("The resampler has been flushed; use a new one for new audio.")
        if self._graph is None:
            return pcm
        self._taken += pcm.size
        return self._emit(self._push_through(pcm))

    def flush(self) -> Samples:
        """End the input; returns the rest, so that the output has round(n * rate_out / rate_in) samples, at least 1.

        Without input there is no output.
        """
        if self._finished or self._graph is None or self._taken == 0:
            self._finished = True
            return np.empty(0, np.float32)
        self._finished = True
        total = max(1, (2 * self._taken * self._rate_out + self._rate_in) // (2 * self._rate_in))
        rest = self._push_through(np.concatenate([self._padding, self._padding]))
        rest += self._feed(self._block[: self._filled])
        return self._emit(rest, total)

    def _push_through(self, pcm: Samples) -> list[Samples]:
        ready: list[Samples] = []
        start = 0
        while start < pcm.size:
            count = min(self._block.size - self._filled, pcm.size - start)
            self._block[self._filled : self._filled + count] = pcm[start : start + count]
            self._filled += count
            start += count
            if self._filled == self._block.size:
                ready += self._feed(self._block)
                self._filled = 0
        return ready

    def _feed(self, block: Samples) -> list[Samples]:
        import av

        if self._graph is None or block.size == 0:
            return []
        frame = av.AudioFrame.from_ndarray(block[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate_in, self._fed, Fraction(1, self._rate_in)
        self._fed += block.size
        self._graph.push(frame)
        ready: list[Samples] = []
        while True:
            try:
                ready.append(as_array(self._graph.pull())[0])
            except (av.error.BlockingIOError, av.error.EOFError):
                return ready

    def _emit(self, ready: list[Samples], total: int | None = None) -> Samples:
        if not ready:
            return np.empty(0, np.float32)
        samples = np.concatenate(ready)
        skipped = min(self._skip, samples.size)
        self._skip -= skipped
        samples = samples[skipped:]
        if total is not None:
            samples = samples[: total - self._given]
        self._given += samples.size
        return samples


def _swresample(rate_in: int, rate_out: int) -> Graph:
    from av.filter import Graph

    graph = Graph()
    source = graph.add(
        "abuffer", sample_rate=str(rate_in), sample_fmt="flt", channel_layout="mono", time_base=f"1/{rate_in}"
    )
    resample = graph.add("aresample", f"{rate_out}:filter_size={_TAPS}:exact_rational=1")
    sink = graph.add("abuffersink")
    source.link_to(resample)
    resample.link_to(sink)
    graph.configure()
    return graph


def as_array(frame: Any) -> NDArray[Any]:
    """The samples of a frame of PyAV's, in its own type."""
    array: NDArray[Any] = frame.to_ndarray()
    return array
