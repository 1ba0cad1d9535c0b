"""PCM, as a speech synthesiser writes it into a pipe, raw or as WAV: bytes in any pieces to float blocks."""

from __future__ import annotations

import os
import select
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .convert import LOUDEST, AudioWarning
from .pcm_doubt import SampleDoubt
from .resampler import MAX_RATE, MIN_RATE
from .wav_header import CHANNELS, MAGIC_BYTES, WAV_MAGIC, SoundForm, is_wav, read_wav_header

Samples = NDArray[np.float32]
# Little endian; the number is bytes of a sample.
FORMATS = {"s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8, "u8": 1}
DEFAULT = SoundForm(16000, 1, "s16le")
# Files of other kinds that somebody may pipe, by their first bytes.
_FILES = {
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b"\x1aE\xdf\xa3": "Matroska",
    b".snd": "AU",
}
_READ_BYTES = 1 << 16
_PATIENCE = 0.1


class PcmDecoder:
    """Turns bytes into samples; what is left of a sample waits for the next bytes."""

    def __init__(self, channels: int, form: str) -> None:
        """Decode `form`, a key of `FORMATS`, with interleaved channels.

        Raises:
            AudioError: another form, or no or more than 32 channels.
        """
        if form not in FORMATS:
            raise AudioError(f"{form!r} is no PCM format that is read here; pass {' or '.join(FORMATS)}.")
        if fault := CHANNELS.fault(channels):
            raise AudioError(f"The channels of a PCM stream {fault}; pass --channels in that range.")
        self._form, self._channels = form, channels
        self._rest = b""

    @property
    def rest(self) -> int:
        """Bytes of a sample that is not complete."""
        return len(self._rest)

    def push(self, data: bytes) -> Samples:
        """Add bytes; returns float32 [samples, channels], which may be none.

        Raises:
            AudioError: NaN, Inf, or a magnitude that no recording has.
        """
        data = self._rest + data
        whole = len(data) - len(data) % (FORMATS[self._form] * self._channels)
        self._rest = data[whole:]
        samples = _to_float(data[:whole], self._form)
        if samples.size and not np.abs(samples).max() <= LOUDEST:
            raise AudioError("There is NaN, Inf or no sound in the PCM stream; check --format and --channels.")
        return samples.reshape(-1, self._channels)


class PcmStream:
    """PCM from a file descriptor, such as stdin, until its end; the length is unknown.

    A stream that begins as a WAV is read as what its header says.

    Attributes:
        duration: None.
        live: False: a synthesiser may be faster than speech, and is made to wait.
    """

    duration: float | None = None
    live = False

    def __init__(
        self, descriptor: int, rate: int | None = None, channels: int | None = None, form: str | None = None
    ) -> None:
        """Read from `descriptor`, which stays open.

        Args:
            descriptor: of the stream.
            rate, channels, form: what a stream without a header is; None takes those of `DEFAULT`.

        Raises:
            AudioError: a rate outside 1 kHz to 768 kHz, no such format, or the descriptor is a terminal.
        """
        if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"A sample rate of {rate} Hz is not supported; pass {MIN_RATE} to {MAX_RATE} Hz.")
        if os.isatty(descriptor):
            raise AudioError("Standard input is a terminal; pipe raw PCM into it, or pass a sound file.")
        self._told = SoundForm(rate or DEFAULT.rate, channels or DEFAULT.channels, form or DEFAULT.form)
        self._rate, self._channels, self._form = rate, channels, form
        PcmDecoder(self._told.channels, self._told.form)
        self._found: SoundForm | None = None
        self._ahead = b""
        self._descriptor = descriptor
        self._closed = False

    @property
    def rate(self) -> int:
        """Samples per second; unless it was told, it is waited for what the stream begins with."""
        return self._told.rate if self._rate else self._begin().rate

    @property
    def channels(self) -> int:
        """Of every block; as `rate`."""
        return self._told.channels if self._rate else self._begin().channels

    def __iter__(self) -> Iterator[Samples]:
        """Blocks float32 [samples, channels] as soon as they arrive.

        Raises:
            AudioError: NaN or Inf, the descriptor cannot be read, it ends without a sample, or it is a sound file of
                another kind or another form than was told.
        """
        found = self._begin()
        decoder = PcmDecoder(found.channels, found.form)
        doubt = SampleDoubt(found.channels) if found is self._told and found.form == "s16le" else None
        left, total = found.size, 0
        while (left is None or left > 0) and (data := self._next()):
            if left is not None:
                # What follows the samples of a WAV is no sound.
                data = data[:left]
                left -= len(data)
            block = decoder.push(data)
            total += len(block)
            if doubt is not None:
                _warn_of(doubt.push((block * 2.0**15).astype(np.int16).ravel()))
            if len(block):
                yield block
        if self._closed:
            return
        if total == 0:
            raise AudioError("Standard input ended without a sample; check that the other program writes sound.")
        if doubt is not None:
            _warn_of(doubt.verdict())
        if decoder.rest:
            warnings.warn(
                f"The sound ended in the middle of a sample; its {decoder.rest} bytes were left out.",
                AudioWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Stop reading; an iteration in another thread ends soon. May be called more than once."""
        self._closed = True

    def __enter__(self) -> PcmStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> SoundForm:
        """What the stream is, as far as its first bytes say."""
        if self._found is None:
            while self._is_undecided() and (data := self._read()):
                self._ahead += data
            for magic, name in _FILES.items():
                if self._ahead.startswith(magic):
                    raise AudioError(
                        f"Standard input is {name} and no PCM; pass the file itself to --audio, or pipe it through "
                        "ffmpeg -i - -f wav -."
                    )
            self._found = self._of_wav() if is_wav(self._ahead) else self._told
        return self._found

    def _is_undecided(self) -> bool:
        """Whether more bytes are needed to tell what this is; samples are not held back for it."""
        ahead = self._ahead
        if ahead[:4] == WAV_MAGIC:
            return len(ahead) < MAGIC_BYTES
        return any(magic != ahead and magic.startswith(ahead) for magic in (WAV_MAGIC, *_FILES))

    def _of_wav(self) -> SoundForm:
        self._take(MAGIC_BYTES)
        found = read_wav_header(self._take)
        if self._rate and (found.rate, found.channels) != (self._told.rate, self._told.channels):
            raise AudioError(
                f"Standard input is a WAV with {found.channels} channels of {found.rate} Hz, not "
                f"{self._told.channels} of {self._told.rate} Hz; leave out --rate, --channels and --format."
            )
        for option, told, said in (
            ("--channels", self._channels, found.channels),
            ("--format", self._form, found.form),
        ):
            if told not in (None, said):
                _warn(f"Standard input is a WAV of {said}, so {option} {told} was left out.")
        return found

    def _take(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        while len(self._ahead) < count and (data := self._read()):
            self._ahead += data
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def _next(self) -> bytes:
        """The next bytes, however many have come; none at the end."""
        ahead, self._ahead = self._ahead, b""
        return ahead or self._read()

    def _read(self) -> bytes:
        try:
            # Windows selects sockets only; there a reader that waits ends with the pipe.
            while sys.platform != "win32" and not self._closed:
                if select.select([self._descriptor], [], [], _PATIENCE)[0]:
                    break
            return b"" if self._closed else os.read(self._descriptor, _READ_BYTES)
        except OSError as error:
            raise AudioError(f"Standard input cannot be read ({error.strerror}); try again.") from None


def _to_float(data: bytes, form: str) -> Samples:
    """Samples of a key of `FORMATS`, scaled so that full scale is 1."""
    if form == "u8":
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
    if form == "s24le":
        # As the upper bytes of 32 bits.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, form = wide.tobytes(), "s32le"
    numbers = np.frombuffer(data, f"<{form[0].replace('s', 'i')}{FORMATS[form]}")
    with np.errstate(over="ignore"):
        samples: Samples = numbers.astype(np.float32)
    return samples if form[0] == "f" else samples / np.float32(2.0 ** (8 * FORMATS[form] - 1))


def _warn_of(doubt: str | None) -> None:
    if doubt is not None:
        _warn(f"Standard input does not look like s16le: these may be {doubt}.")


def _warn(sentence: str) -> None:
    warnings.warn(sentence, AudioWarning, stacklevel=2)
