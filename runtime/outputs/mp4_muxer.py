"""`Mp4Muxer`: H.264 and AAC into any file-like object; a recording and a stream differ in a few settings only.

PyAV (FFmpeg's libavformat, libx264 and AAC encoder) is imported when a muxer is made, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..spec import height_and_width

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.frame import VideoFrame

# The rates that MPEG-4 AAC has an index for (ISO 14496-3, table 1.18), up to 48 kHz.
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BITS_PER_SECOND = 96_000


@dataclass(frozen=True)
class Mp4Form:
    """How an mp4 is laid out: FFmpeg's options of the muxer and of libx264, and seconds from keyframe to keyframe.

    At a keyframe the noise of the compression changes everywhere at once, about five times as much as between other
    frames. Every second that is seen as a pulse, so groups are as long as seeking and a stream's buffer allow.
    Without `priming` the block in which the AAC encoder warms up, and with it the edit list that cuts it, is left out.
    """

    muxer: Mapping[str, str]
    encoder: Mapping[str, str]
    group_seconds: int
    priming: bool = True


# Fragments of a second while writing, so that a killed process leaves a playable file; a plain mp4 once closed. The
# header waits for the first packets because the edit list, which removes the AAC encoder's delay, depends on them.
# libx264's choice depends on its number of threads; it takes one for every core unless it is told.
RECORDING = Mp4Form(
    {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000", "flush_packets": "1"},
    {"crf": "18", "preset": "veryfast", "threads": "4"},
    10,
)
# The same left in fragments: a plain mp4 needs the place of every frame, which FFmpeg keeps in memory until the end,
# 10 MiB for an hour.
FRAGMENTED = Mp4Form(
    {"movflags": "delay_moov+default_base_moof", "frag_duration": "1000000", "flush_packets": "1"},
    RECORDING.encoder,
    RECORDING.group_seconds,
)
# Fragments of two frames and an encoder that holds none back. FFmpeg's `frag_every_frame` misplaces the pictures when
# there is sound too. AAC works in blocks of 1024 samples, so 48 kHz holds back the least. With its priming block, which
# lies before the start, Firefox shows two pictures and then none before the second keyframe.
# Intra refresh would need no further keyframes, but browsers cut their buffers at nothing else: Chromium empties it.
STREAM = Mp4Form(
    {"movflags": "delay_moov+default_base_moof", "frag_duration": "80000", "flush_packets": "1"},
    {"crf": "18", "preset": "veryfast", "tune": "zerolatency"},
    20,
    priming=False,
)


class Mp4Muxer:
    """Encodes frames and sound that both start at 0 into one mp4."""

    def __init__(
        self,
        file: Any,
        name: str,
        size: int | tuple[int, int],
        fps: int,
        audio_rate: int,
        audio_channels: int,
        form: Mp4Form,
        container: str = "mp4",
    ) -> None:
        """Open the encoders.

        Args:
            file: takes the bytes by `write`; all but a `STREAM` need `seek` and `tell` too.
            name: of the file, for messages.
            size: height and width of a frame, even; one number makes a square.
            fps: frames per second.
            audio_rate: one of `AAC_RATES`, in Hz.
            audio_channels: 1 or 2.
            form: `RECORDING`, `FRAGMENTED` or `STREAM`.
            container: "mp4", or "mov" for QuickTime's variant of it.

        Raises:
            OutputError: the size or the sound has no mp4 form, or an encoder is missing.
        """
        import av
        from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

        height, width = height_and_width(size)
        if min(height, width) < 16 or height % 2 or width % 2 or fps < 1:
            raise OutputError(
                f"{width} x {height} pixels at {fps} frames per second have no H.264 form; use an even size."
            )
        if audio_rate not in AAC_RATES or audio_channels not in (1, 2):
            raise OutputError(
                f"{audio_channels} channels at {audio_rate} Hz have no AAC form; resample to 48000 Hz, 1 or 2 channels."
            )
        self.frames = self.samples = 0
        self._name, self._size, self._fps, self._rate = name, (height, width), fps, audio_rate
        self._priming = form.priming
        self._channels, self._layout = audio_channels, "mono" if audio_channels == 1 else "stereo"
        self._reformatter = VideoReformatter()
        try:
            self._container = av.open(file, "w", format=container, options=dict(form.muxer))
            self._video = self._container.add_stream("libx264", rate=fps, options=dict(form.encoder))
            self._video.height, self._video.width = height, width
            self._video.pix_fmt = "yuv420p"
            context = self._video.codec_context
            context.gop_size = form.group_seconds * fps
            context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
            context.color_primaries, context.color_trc = 1, 1
            self._audio = self._container.add_stream("aac", rate=audio_rate, layout=self._layout)
            # AAC-LC allows 6144 bits per channel and block of 1024 samples.
            self._audio.bit_rate = min(_BITS_PER_SECOND, 5 * audio_rate) * audio_channels
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(f"PyAV {av.__version__} cannot write mp4 ({error}); upgrade av.") from error

    @property
    def mime(self) -> str:
        """The type with its codecs (RFC 6381), as browsers ask for it."""
        if not self._video.codec_context.is_open:
            self._video.codec_context.open()
        # The sequence parameter set, NAL unit 0x67, begins with profile, constraints and level.
        header = self._video.codec_context.extradata or b""
        start = header.find(b"\x67") + 1
        return f'video/mp4; codecs="avc1.{header[start : start + 3].hex()}, mp4a.40.2"'

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        """Add frames and sound; each continues where it ended.

        Args:
            frames: uint8 [T, height, width, 3] RGB, T may be 0.
            audio: float32 [samples, channels] in -1..1, samples may be 0.

        Raises:
            OutputError: they cannot be written, or have another shape.
        """
        import av

        if frames.shape[1:] != (*self._size, 3) or frames.dtype != np.uint8:
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
                self._container.mux(self._blocks(sound))
        except av.FFmpegError as error:
            raise OutputError(f"{self._name!r} cannot be written ({error}); choose another name.") from error

    def finish(self) -> None:
        """Write what the encoders hold and the end of the mp4; raises `OutputError` if that fails."""
        import av

        try:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._blocks(None))
            self._container.close()
        except av.FFmpegError as error:
            raise OutputError(f"{self._name!r} cannot be completed ({error}); try again.") from error

    def abandon(self) -> None:
        """Let go of the encoders; what was written stays as it is."""
        import av

        with suppress(av.FFmpegError):
            self._container.close()

    def _blocks(self, sound: AudioFrame | None) -> list[Packet[AudioStream]]:
        """The next blocks of AAC; the last for None."""
        return [block for block in self._audio.encode(sound) if self._priming or block.pts is None or block.pts >= 0]

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


def copy_with_index_in_front(source: str, file: Any, container: str = "mp4") -> None:
    """Copy a complete mp4 packet by packet so that its index comes first: a player on the net starts at once.

    Args:
        source: the mp4, as FFmpeg names it.
        file: takes the copy, as `Mp4Muxer`; its `name` is the file itself, which is read again to make room.
        container: as `Mp4Muxer`.

    Raises:
        OutputError: it cannot be copied.
    """
    import av

    try:
        with (
            av.open(source) as read,
            av.open(file, "w", format=container, options={"movflags": "faststart"}) as written,
        ):
            streams = [written.add_stream_from_template(stream) for stream in read.streams]
            for packet in read.demux():
                # The last packet of a stream only says that it has ended.
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    written.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise OutputError(f"{source!r} cannot be copied ({error}); free some space.") from error
