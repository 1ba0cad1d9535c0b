"""The header of a WAV stream, as a program writes it into a pipe: what the samples after it are."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..checks.bounds import Whole
from ..errors import AudioError
from .resampler import MAX_RATE, MIN_RATE

# What a WAV stream begins with, and the bytes from which it is told for certain.
WAV_MAGIC, MAGIC_BYTES = b"RIFF", 12
CHANNELS = Whole(1, 32)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# By encoding and bits of a sample, the names of `pcm.FORMATS`.
_FORMATS = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16le",
    (_PCM, 24): "s24le",
    (_PCM, 32): "s32le",
    (_FLOAT, 32): "f32le",
    (_FLOAT, 64): "f64le",
}
_RATES = Whole(MIN_RATE, MAX_RATE)
# Who does not know the length yet writes 0 or one of those near 2 or 4 GiB.
_UNKNOWN_LENGTH = 0x7FFF0000
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class SoundForm:
    """What a stream of samples is.

    Attributes:
        rate: samples per second.
        channels: interleaved.
        form: a key of `pcm.FORMATS`.
        size: bytes of samples; None means until the end.
    """

    rate: int
    channels: int
    form: str
    size: int | None = None


def is_wav(head: bytes) -> bool:
    """Whether a stream that begins with these `MAGIC_BYTES` bytes is a WAV."""
    return head[:4] == WAV_MAGIC and head[8:12] == b"WAVE"


def read_wav_header(read: Callable[[int], bytes]) -> SoundForm:
    """Read on to the first sample.

    Args:
        read: gives the next so many bytes of the stream, fewer at its end; the magic ones have been read.

    Raises:
        AudioError: the header is cut off, or describes samples that are not read from a pipe.
    """
    form: SoundForm | None = None
    left = _LONGEST_HEADER
    while len(chunk := read(8)) == 8:
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"data":
            if form is None:
                break
            length = None if size == 0 or size >= _UNKNOWN_LENGTH else size
            return SoundForm(form.rate, form.channels, form.form, length)
        # Chunks begin at even places.
        left -= size + size % 2
        if left < 0:
            break
        content = read(size + size % 2)
        if name == b"fmt ":
            form = _form(content)
    raise AudioError("The WAV stream on standard input has no complete header; check the program that writes it.")


def _form(content: bytes) -> SoundForm:
    if len(content) < 16:
        raise AudioError("The WAV stream on standard input does not say what its samples are; save it to a file first.")
    encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
    if encoding == _EXTENSIBLE and len(content) >= 26:
        encoding = int.from_bytes(content[24:26], "little")
    form = _FORMATS.get((encoding, bits))
    if form is None:
        raise AudioError(
            f"The WAV stream on standard input has samples of {bits} bits in encoding {encoding}, which are not read "
            "from a pipe; convert it with ffmpeg -i - -f wav -c:a pcm_s16le -."
        )
    for name, bounds, value in (("sample rate", _RATES, rate), ("number of channels", CHANNELS, channels)):
        if fault := bounds.fault(value):
            raise AudioError(f"The {name} of the WAV stream on standard input {fault}; convert it with ffmpeg.")
    return SoundForm(rate, channels, form)
