"""Audio in: files as float blocks, conversion to mono float, and a streaming resampler.

PyAV (FFmpeg's libavformat and libswresample) is imported when a file is opened or rates differ, not before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .sound_container import CONTAINERS, open_sound

if TYPE_CHECKING:
    import av
    from av.audio.frame import AudioFrame
    from av.filter import Graph

Samples = NDArray[np.float32]
MIN_RATE, MAX_RATE = 1_000, 768_000
# Far above full scale, far below what overflows in a filter or a network.
LOUDEST = 1e6
_SCALES = {
    np.dtype(np.uint8): 2.0**7,
    np.dtype(np.int16): 2.0**15,
    np.dtype(np.int32): 2.0**31,
    np.dtype(np.float32): 1.0,
    np.dtype(np.float64): 1.0,
}
_TAPS = 64
_BLOCKS_PER_SECOND = 100
# PyAV reads past the end of a frame that keeps so many channels apart.
_MANY_PLANES = 8


class AudioWarning(UserWarning):
    """Audio was used although something about it is odd."""


def to_float(pcm: NDArray[Any]) -> Samples:
    """Mono samples as float32 in -1..1.

    Args:
        pcm: [samples] float32 or float64 in -1..1, int16, int32, or uint8 with its zero at 128.

    Raises:
        AudioError: another dtype or shape, NaN or Inf, or a magnitude that no recording has.
    """
    if pcm.ndim != 1:
        raise AudioError(f"Samples have shape {list(pcm.shape)} instead of [samples]; mix the channels to mono first.")
    return _checked(_scaled(pcm), "the samples")


def to_mono(samples: Samples) -> Samples:
    """The mean of the channels: float32 [samples, channels] to [samples]."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


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
                ready.append(_array(self._graph.pull())[0])
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


class AudioFile:
    """An open audio file; iterating decodes it once, from start to end, in constant memory.

    Attributes:
        rate: samples per second.
        channels: channels of every block.
        duration: length in seconds as far as the file states it, else None.
        live: False, a file waits.
    """

    live = False

    def __init__(self, path: str | Path, containers: tuple[str, ...] = CONTAINERS) -> None:
        """Open the file and decode its first samples.

        Args:
            path: a sound file, or a video, whose best audio stream is taken.
            containers: the kinds of file to open; see `sound_container`.

        Raises:
            AudioError: missing, unreadable, empty, without audio or without samples.
        """
        self._path = path
        self._container, self._stream = open_sound(path, containers)
        try:
            self.duration = _duration(self._container, self._stream)
            self._interleaver: av.AudioResampler | None = None
            self.rate = self.channels = self._position = 0
            decoded = self._decode()
            first = next(decoded, None)
            if first is None:
                raise AudioError(f"{str(path)!r} holds no samples; pass a sound file that is not empty.")
        except BaseException:
            self._container.close()
            raise
        self._blocks: Iterable[Samples] = chain([first], decoded)

    def __iter__(self) -> Iterator[Samples]:
        """Blocks float32 [samples, channels] in -1..1, of any length but 0.

        Raises:
            AudioError: NaN or Inf, or the rate or the number of channels changes.
        """
        return iter(self._blocks)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(self) -> Iterator[Samples]:
        import av

        damaged = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                raise AudioError(f"{self._where()} cannot be read ({error.strerror}); mend or convert it.") from None
            if packet is None:
                break
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                if frame.samples:
                    self._check_form(frame)
                    yield self._convert(frame)
        if self._position:
            self._warn_of_gaps(damaged)

    def _warn_of_gaps(self, damaged: int) -> None:
        seconds, stated = self._position / self.rate, self.duration or 0.0
        found = []
        if damaged:
            found.append(f"has {damaged} damaged packets, which were left out of sound and video")
        if stated - seconds > max(0.5, 0.1 * stated):
            found.append(f"ends after {seconds:.1f} s although it suggests {stated:.1f} s; it may be cut off")
        for what in found:
            warnings.warn(f"{str(self._path)!r} {what}.", AudioWarning, stacklevel=2)

    def _check_form(self, frame: AudioFrame) -> None:
        channels = frame.layout.nb_channels
        if self.rate == 0:
            self.rate, self.channels = frame.sample_rate, channels
            if not MIN_RATE <= self.rate <= MAX_RATE:
                raise AudioError(f"{str(self._path)!r} has {self.rate} samples per second; convert it to 48000.")
        if (frame.sample_rate, channels) != (self.rate, self.channels):
            raise self._changed()

    def _convert(self, frame: AudioFrame) -> Samples:
        if frame.format.is_planar and self.channels >= _MANY_PLANES:
            array = np.hstack([_array(part) for part in self._interleaved(frame)]).reshape(-1, self.channels)
        else:
            array = _array(frame).T if frame.format.is_planar else _array(frame).reshape(-1, self.channels)
        samples = _checked(_scaled(array), self._where())
        self._position += len(samples)
        return samples

    def _interleaved(self, frame: AudioFrame) -> list[AudioFrame]:
        import av

        if self._interleaver is None:
            self._interleaver = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
        try:
            return self._interleaver.resample(frame)
        except ValueError:
            raise self._changed() from None

    def _changed(self) -> AudioError:
        return AudioError(f"{self._where()} changes its sample rate or channels; convert it to a plain WAV.")

    def _where(self) -> str:
        seconds = self._position / self.rate if self.rate else 0.0
        return f"{str(self._path)!r} at {seconds:.2f} s"


def read_audio(path: str | Path, containers: tuple[str, ...] = CONTAINERS) -> AudioFile:
    """Open an audio file for streaming; see `AudioFile`."""
    return AudioFile(path, containers)


def _duration(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6


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


def _array(frame: Any) -> NDArray[Any]:
    array: NDArray[Any] = frame.to_ndarray()
    return array


def _scaled(pcm: NDArray[Any]) -> Samples:
    scale = _SCALES.get(pcm.dtype)
    if scale is None:
        raise AudioError(f"Samples of type {pcm.dtype} are not supported; convert them to float32 or int16.")
    if pcm.dtype.kind == "f":
        # float64 beyond float32's range becomes Inf, which `_checked` reports.
        with np.errstate(over="ignore"):
            return pcm.astype(np.float32)
    zero = 128.0 if pcm.dtype.kind == "u" else 0.0
    return ((pcm.astype(np.float64) - zero) / scale).astype(np.float32)


def _checked(samples: Samples, where: str) -> Samples:
    if samples.size and not np.abs(samples).max() <= LOUDEST:
        what = "a magnitude beyond any sound" if np.isfinite(samples).all() else "NaN or Inf"
        raise AudioError(f"There is {what} in {where}; convert the sound to -1..1 and try again.")
    return samples
