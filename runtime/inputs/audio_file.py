"""Sound files as float blocks.

PyAV (FFmpeg's libavformat) is imported when a file is opened, not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AudioError
from .convert import AudioWarning, Samples, checked, scaled
from .resampler import MAX_RATE, MIN_RATE, as_array
from .sound_container import CONTAINERS, open_sound

if TYPE_CHECKING:
    import av
    from av.audio.frame import AudioFrame


# PyAV reads past the end of a frame that keeps so many channels apart.
_MANY_PLANES = 8


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
            array = np.hstack([as_array(part) for part in self._interleaved(frame)]).reshape(-1, self.channels)
        else:
            array = as_array(frame).T if frame.format.is_planar else as_array(frame).reshape(-1, self.channels)
        samples = checked(scaled(array), self._where())
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


def read_audio(path: str | Path) -> AudioFile:
    """Open a sound file, or a video's sound, for streaming.

    Raises:
        AudioError: as `AudioFile`.
    """
    return AudioFile(path)


def _duration(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1e6
