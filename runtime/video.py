"""`Mp4Writer`: H.264 and AAC in an mp4 that is playable whatever happens while it is written.

PyAV (FFmpeg's libavformat, libx264 and AAC encoder) is imported when a writer is made, not before.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import OutputError
from .pending_file import PendingFile

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# The rates that MPEG-4 AAC has an index for (ISO 14496-3, table 1.18), up to 48 kHz.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_QUALITY = {"crf": "18", "preset": "veryfast"}
# Fragments while writing, so that a killed process leaves a playable file; a plain mp4 once closed. The header waits
# for the first packets because the edit list, which removes the AAC encoder's delay, depends on them.
_MUXER = {"movflags": "hybrid_fragmented+delay_moov+frag_keyframe", "flush_packets": "1"}
_BITS_PER_SECOND = 96_000


class Mp4Writer:
    """A sink that writes an mp4 next to its final name and moves it there at `close`.

    Sound and picture start at 0. Until `close` an older file of that name stays as it is; if the process dies, what
    was written so far is playable under a hidden name that ends in `.part`.
    """

    def __init__(self, path: str | Path, size: int, fps: int, audio_rate: int, audio_channels: int) -> None:
        """Create the file.

        Args:
            path: where the video will be.
            size: height and width of a frame, even.
            fps: frames per second.
            audio_rate: one of `AAC_RATES`, in Hz.
            audio_channels: 1 or 2.

        Raises:
            OutputError: the file cannot be created, or the size or the sound has no mp4 form.
        """
        import av
        from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

        if size < 16 or size % 2 or fps < 1:
            raise OutputError(f"{size} pixels at {fps} frames per second have no H.264 form; use an even size.")
        if audio_rate not in AAC_RATES or audio_channels not in (1, 2):
            raise OutputError(
                f"{audio_channels} channels at {audio_rate} Hz have no AAC form; resample to 48000 Hz, 1 or 2 channels."
            )
        self.frames = self.samples = 0
        self._size, self._fps, self._rate, self._channels = size, fps, audio_rate, audio_channels
        self._layout = "mono" if audio_channels == 1 else "stereo"
        self._file = PendingFile(path)
        self._open = True
        self._reformatter = VideoReformatter()
        try:
            self._container = av.open(self._file, "w", format="mp4", options=_MUXER)
            self._video = self._container.add_stream("libx264", rate=fps, options=_QUALITY)
            self._video.width = self._video.height = size
            self._video.pix_fmt = "yuv420p"
            context = self._video.codec_context
            context.gop_size = fps
            context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
            context.color_primaries, context.color_trc = 1, 1
            self._audio = self._container.add_stream("aac", rate=audio_rate, layout=self._layout)
            # AAC-LC allows 6144 bits per channel and block of 1024 samples.
            self._audio.bit_rate = min(_BITS_PER_SECOND, 5 * audio_rate) * audio_channels
        except (av.FFmpegError, ValueError) as error:
            self._file.discard()
            raise OutputError(f"PyAV {av.__version__} cannot write mp4 ({error}); upgrade av.") from error

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        """Add frames and sound; each continues where it ended.

        Args:
            frames: uint8 [T, size, size, 3] RGB, T may be 0.
            audio: float32 [samples, channels] in -1..1, samples may be 0.

        Raises:
            OutputError: the disk is full, or the writer is closed, or frames or sound have another shape.
        """
        import av

        self._require_open()
        if frames.shape[1:] != (self._size, self._size, 3) or frames.dtype != np.uint8:
            raise OutputError(
                f"Frames {frames.dtype}{list(frames.shape)} do not fit the video; open a writer of their size."
            )
        if audio.ndim != 2 or audio.shape[1] != self._channels:
            raise OutputError(f"Sound of shape {list(audio.shape)} does not fit the video; pass [samples, channels].")
        try:
            for frame in frames:
                self._container.mux(self._video.encode(self._picture(frame)))
            if len(audio):
                sound = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(audio.T, np.float32), format="fltp", layout=self._layout
                )
                sound.sample_rate, sound.pts, sound.time_base = self._rate, self.samples, Fraction(1, self._rate)
                self.samples += len(audio)
                self._container.mux(self._audio.encode(sound))
        except av.FFmpegError as error:
            self._file.check()
            raise OutputError(f"{str(self._file.path)!r} cannot be written ({error}); choose another name.") from error
        self._file.check()

    def close(self) -> None:
        """Complete the mp4 and move it to its name.

        Raises:
            OutputError: it cannot be completed, or it has no frame; the older file stays.
        """
        import av

        if not self._open:
            return
        if self.frames == 0:
            self.discard()
            raise OutputError(f"{str(self._file.path)!r} would have no frame; nothing was written.")
        self._open = False
        try:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
            self._container.close()
        except av.FFmpegError as error:
            self._file.discard()
            self._file.check()
            raise OutputError(f"{str(self._file.path)!r} cannot be completed ({error}); try again.") from error
        self._file.commit()

    def discard(self) -> None:
        """Give up: nothing appears, and an older file stays as it is."""
        import av

        if not self._open:
            return
        self._open = False
        try:
            self._container.close()
        except av.FFmpegError:
            pass
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

    def _picture(self, frame: NDArray[np.uint8]) -> VideoFrame:
        import av
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = self._reformatter.reformat(
            rgb,
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            dst_colorspace=Colorspace.ITU709,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
        )
        picture.pts, picture.time_base = self.frames, Fraction(1, self._fps)
        self.frames += 1
        return picture

    def _require_open(self) -> None:
        if not self._open:
            raise OutputError(f"{str(self._file.path)!r} has been closed; open a new writer.")
