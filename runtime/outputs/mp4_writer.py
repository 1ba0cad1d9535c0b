"""`Mp4Writer`: H.264 and AAC in an mp4 that is playable whatever happens while it is written."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..bundle.pending_file import PendingFile
from ..errors import OutputError, OutputKeptError
from ..inputs.source import LiveSource
from ..spec import ModelSpec
from .mp4_muxer import AAC_RATES, FRAGMENTED, RECORDING, Mp4Muxer, copy_with_index_in_front

__all__ = ["AAC_RATES", "Mp4Writer", "container_of"]

# By the suffix that promises them.
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}


def container_of(path: str | Path) -> str:
    """FFmpeg's name for what a video's suffix promises; without a suffix it is an mp4.

    Raises:
        OutputError: it promises something that is not written here.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in ("", *_CONTAINERS):
        raise OutputError(
            f"{str(path)!r} would be an mp4 under a wrong name; choose one of the suffixes {', '.join(_CONTAINERS)}."
        )
    return _CONTAINERS.get(suffix, "mp4")


class Mp4Writer:
    """A sink that writes an mp4, or a mov, next to its final name and moves it there at `close`.

    Sound and picture start at 0. Until `close` an older file of that name stays as it is; if the process dies, what
    was written so far is playable under a hidden name that ends in `.part`.

    Attributes:
        rate: samples per second that it takes.
        channels: 1 or 2.
    """

    def __init__(
        self,
        path: str | Path,
        size: int | tuple[int, int],
        fps: int,
        rate: int,
        channels: int,
        *,
        fragmented: bool = False,
    ) -> None:
        """Create the file.

        Args:
            path: where the video will be; a suffix must be one of .mp4, .m4v and .mov.
            size: height and width of a frame, even; one number makes a square.
            fps: frames per second.
            rate: of the sound, one of `AAC_RATES`, in Hz.
            channels: of the sound, 1 or 2.
            fragmented: leave the complete file in fragments. Memory stays constant, where a plain mp4 takes 10 MiB for
                an hour; players take both, some editors only plain ones.

        Raises:
            OutputError: the file cannot be created, its suffix promises another format, or the size or the sound has no
                mp4 form.
        """
        self.rate, self.channels = rate, channels
        self._container = container_of(path)
        self._fragmented = fragmented
        self._file = PendingFile(path)
        self._open = True
        try:
            form = FRAGMENTED if fragmented else RECORDING
            self._muxer = Mp4Muxer(self._file, str(path), size, fps, rate, channels, form, self._container)
        except OutputError:
            self._file.discard()
            raise

    @classmethod
    def for_source(
        cls, path: str | Path, spec: ModelSpec, source: LiveSource, *, fragmented: bool = False
    ) -> Mp4Writer:
        """A video of what a model makes of a source: frames of its size, and the source's sound.

        A rate that AAC lacks becomes 48 kHz, and more than two channels become one.

        Raises:
            OutputError: as the constructor.
        """
        rate = source.rate if source.rate in AAC_RATES else max(AAC_RATES)
        channels = source.channels if source.channels <= 2 else 1
        return cls(path, spec.image_size, spec.fps, rate, channels, fragmented=fragmented)

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._muxer.frames

    @property
    def samples(self) -> int:
        """Samples written so far, per channel."""
        return self._muxer.samples

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        """Add frames and sound; each continues where it ended.

        Args:
            frames: uint8 [T, height, width, 3] RGB, T may be 0.
            audio: float32 [samples, channels] in -1..1, samples may be 0.

        Raises:
            OutputError: the disk is full, or the writer is closed, or frames or sound have another shape.
        """
        if not self._open:
            raise OutputError(f"{str(self._file.path)!r} has been closed; open a new writer.")
        try:
            self._muxer.write(frames, audio)
        finally:
            # The muxer does not see a full disk; the file does, and knows the reason.
            self._file.check()

    def close(self) -> None:
        """Complete the mp4, put its index in front, and move it to its name.

        Raises:
            OutputError: it cannot be completed, or it has no frame; the older file stays.
        """
        if not self._open:
            return
        if self.frames == 0:
            self.discard()
            raise OutputError(f"{str(self._file.path)!r} would have no frame; nothing was written.")
        self._open = False
        try:
            self._muxer.finish()
        except OutputError:
            self._file.discard()
            self._file.check()
            raise
        with self._file:
            self._commit()

    def _commit(self) -> None:
        self._file.check()
        if not self._fragmented:
            try:
                with PendingFile(self._file.path) as copy:
                    copy_with_index_in_front(self._file.name, copy, self._container)
                    copy.commit()
                    return
            except OutputKeptError:
                raise
            except OutputError:
                # There is no room for a copy; with the index at its end the video is complete too.
                pass
        self._file.commit()

    def discard(self) -> None:
        """Give up: nothing appears, and an older file stays as it is."""
        if not self._open:
            return
        self._open = False
        try:
            self._muxer.abandon()
        finally:
            self._file.discard()

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
