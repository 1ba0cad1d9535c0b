"""Raw PCM, as a speech synthesiser writes it into a pipe: bytes in any pieces to float blocks."""

from __future__ import annotations

import os
import select
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import LOUDEST, MAX_RATE, MIN_RATE, AudioWarning
from .bounds import Whole
from .errors import AudioError

Samples = NDArray[np.float32]
# Little endian; the number is the value of full scale.
FORMATS: dict[str, tuple[np.dtype[Any], float]] = {"s16le": (np.dtype("<i2"), 2.0**15), "f32le": (np.dtype("<f4"), 1.0)}
_READ_BYTES = 1 << 16
_PATIENCE = 0.1
CHANNELS = Whole(1, 32)


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
        self._dtype, self._scale = FORMATS[form]
        self._channels = channels
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
        whole = len(data) - len(data) % (self._dtype.itemsize * self._channels)
        self._rest = data[whole:]
        numbers = np.frombuffer(data[:whole], self._dtype)
        samples: Samples = numbers.astype(np.float32) / np.float32(self._scale)
        if samples.size and not np.abs(samples).max() <= LOUDEST:
            raise AudioError("There is NaN, Inf or no sound in the PCM stream; check --format and --channels.")
        return samples.reshape(-1, self._channels)


class PcmStream:
    """Raw PCM from a file descriptor, such as stdin, until its end; the length is unknown.

    Attributes:
        rate: samples per second.
        channels: of every block.
        duration: None.
        live: False: a synthesiser may be faster than speech, and is made to wait.
    """

    duration: float | None = None
    live = False

    def __init__(self, descriptor: int, rate: int, channels: int, form: str) -> None:
        """Read from `descriptor`, which stays open.

        Raises:
            AudioError: a rate outside 1 kHz to 768 kHz, no such format, or the descriptor is a terminal.
        """
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"A sample rate of {rate} Hz is not supported; pass {MIN_RATE} to {MAX_RATE} Hz.")
        if os.isatty(descriptor):
            raise AudioError("Standard input is a terminal; pipe raw PCM into it, or pass a sound file.")
        self.rate, self.channels = rate, channels
        self._decoder = PcmDecoder(channels, form)
        self._descriptor = descriptor
        self._closed = False

    def __iter__(self) -> Iterator[Samples]:
        """Blocks float32 [samples, channels] as soon as they arrive.

        Raises:
            AudioError: NaN or Inf, the descriptor cannot be read, or it ends without a sample.
        """
        total = 0
        while data := self._read():
            block = self._decoder.push(data)
            total += len(block)
            if len(block):
                yield block
        if self._closed:
            return
        if total == 0:
            raise AudioError("Standard input ended without a sample; check that the other program writes sound.")
        if self._decoder.rest:
            warnings.warn(
                f"The sound ended in the middle of a sample; its {self._decoder.rest} bytes were left out.",
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

    def _read(self) -> bytes:
        try:
            # Windows selects sockets only; there a reader that waits ends with the pipe.
            while sys.platform != "win32" and not self._closed:
                if select.select([self._descriptor], [], [], _PATIENCE)[0]:
                    break
            return b"" if self._closed else os.read(self._descriptor, _READ_BYTES)
        except OSError as error:
            raise AudioError(f"Standard input cannot be read ({error.strerror}); try again.") from None
