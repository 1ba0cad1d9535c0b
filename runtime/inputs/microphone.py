"""`Microphone`: a recording device as a source whose time stays right, also while the device is away.

PortAudio is loaded, through sounddevice, when a microphone is opened and not before.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .convert import AudioWarning
from .portaudio import TwinInputsError, close_stream, find_again, find_input, quiet_stderr, rescan, sounddevice
from .resampler import MAX_RATE, MIN_RATE
from .ring import SampleRing

Samples = NDArray[np.float32]
_RING_SECONDS = 10.0
_POLL, _GAP_POLL = 0.005, 0.02
# A device that runs gives sound many times a second; sound servers may take a second to start.
_STALLED = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0
# Silence lags so far behind a gap, so that the sound which ends it is not late.
_GAP_MARGIN = 0.2


@dataclass(frozen=True)
class InputStats:
    """What went wrong between the device and the reader.

    Attributes:
        overflows: times that sound was lost because it was not taken in time, by PortAudio or by the ring.
        dropped_seconds: sound that the ring had no room for.
        underruns: times that PortAudio had no sound to give and put silence in its place.
        gaps: times that the device was away.
        gap_seconds: silence that was put in for them.
    """

    overflows: int = 0
    dropped_seconds: float = 0.0
    underruns: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0

    def sentences(self) -> list[str]:
        """One for each kind of trouble that there was."""
        found = []
        if self.overflows:
            found.append(
                f"The microphone lost sound {self.overflows} times because the machine was busy; "
                f"{self.dropped_seconds:.2f} s found no room."
            )
        if self.underruns:
            found.append(f"The microphone had no sound to give {self.underruns} times.")
        if self.gaps:
            found.append(f"The microphone was away {self.gaps} times; silence fills {self.gap_seconds:.2f} s.")
        return found


class Microphone:
    """A recording device; iterating gives its sound until `close`.

    While the device is away there is silence of the same length, and it is opened again as soon as it is back. For
    that PortAudio has to look for devices anew, which ends any other PortAudio stream of the process.

    Attributes:
        name: of the device.
        rate: samples per second.
        channels: of every block.
        duration: None, nobody knows.
        live: True.
    """

    duration: float | None = None
    live = True

    def __init__(
        self,
        device: str | None = None,
        rate: int | None = None,
        channels: int | None = None,
        *,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        """Open the device and start to record.

        Args:
            device: name, part of a name or index; None takes the system's choice.
            rate: in Hz; None takes the device's own.
            channels: 1 or 2; None takes one, or two where the device has no less.
            on_notice: is told, in one sentence, that the device went or came back; None gives an `AudioWarning`.

        Raises:
            AudioError: PortAudio is not installed, there is no such device, or it cannot record in this form.
        """
        found = find_input(device)
        # The index may mean another device after a rescan; the system's choice may become a better one.
        self._chosen = None if device is None else found
        self._doubt: str | None = None
        self.name = found.name
        self.rate = found.rate if rate is None else rate
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise AudioError(f"{self.rate} samples per second are not supported; pass --rate 48000.")
        self._notify = _warn if on_notice is None else on_notice
        self._closed = threading.Event()
        self._device_lock = threading.Lock()
        self._gaps, self._gap_samples = 0, 0
        self._stream: Any = None
        self._hanging = False
        failure: AudioError | None = None
        for count in (1, 2) if channels is None else (channels,):
            self.channels = count
            self._ring = SampleRing(round(_RING_SECONDS * self.rate), count)
            self._tap = _Tap(self._ring, self.rate)
            try:
                self._open(found.index)
                return
            except AudioError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    @property
    def stats(self) -> InputStats:
        """What has gone wrong so far."""
        return InputStats(
            overflows=self._tap.overflows,
            dropped_seconds=self._ring.dropped / self.rate,
            underruns=self._tap.underruns,
            gaps=self._gaps,
            gap_seconds=self._gap_samples / self.rate,
        )

    def __iter__(self) -> Iterator[Samples]:
        """Blocks float32 [samples, channels] as they come, until `close`."""
        while not self._closed.is_set():
            block = self._ring.read()
            if len(block):
                yield block
            elif self._lost():
                yield from self._bridge()
            else:
                self._closed.wait(_POLL)
        if len(block := self._ring.read()):
            yield block

    def end(self) -> None:
        """Let an iteration end with what has been recorded, without waiting, from a signal handler for instance."""
        self._closed.set()

    def close(self) -> None:
        """Stop recording; an iteration in another thread ends. May be called more than once."""
        self._closed.set()
        with self._device_lock:
            self._shut()

    def __enter__(self) -> Microphone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, index: int) -> None:
        sd = sounddevice()
        try:
            stream = sd.InputStream(
                samplerate=self.rate,
                device=index,
                channels=self.channels,
                dtype="float32",
                latency="high",
                callback=self._tap,
            )
        except (sd.PortAudioError, ValueError) as error:
            raise AudioError(
                f"Microphone {self.name!r} does not record {self.channels} channels at {self.rate} Hz "
                f"({_reason(error)}); pass another --rate or --channels, or another --device."
            ) from None
        try:
            stream.start()
        except sd.PortAudioError as error:
            stream.close()
            raise AudioError(f"Microphone {self.name!r} does not start ({_reason(error)}); try again.") from None
        self._stream = stream

    def _lost(self) -> bool:
        stream = self._stream
        return stream is None or not stream.active or time.monotonic() - self._tap.last > _STALLED

    def _bridge(self) -> Iterator[Samples]:
        """Silence from the last sound of the device to its first after it has come back."""
        gone, given = self._tap.last, 0
        self._gaps += 1
        self._notify(f"Microphone {self.name!r} is gone; there is silence until it is back.")
        retry, pause = gone, _FIRST_PAUSE
        running = False
        while not self._closed.is_set():
            if not running and time.monotonic() >= retry:
                doubt, running = self._doubt, self._reopen()
                retry = time.monotonic() + pause
                pause = min(2 * pause, _LONGEST_PAUSE)
                if self._doubt is not None and doubt is None:
                    self._notify(self._doubt)
            if running and self._tap.first is not None:
                yield from self._silence(round((self._tap.first - gone) * self.rate) - given)
                self._notify(f"Microphone {self.name!r} is back after {self._tap.first - gone:.1f} s.")
                return
            running = running and not self._lost()
            missing = round((time.monotonic() - _GAP_MARGIN - gone) * self.rate) - given
            given += max(missing, 0)
            yield from self._silence(missing)
            self._closed.wait(_GAP_POLL)

    def _silence(self, samples: int) -> Iterator[Samples]:
        if samples > 0:
            self._gap_samples += samples
            yield np.zeros((samples, self.channels), np.float32)

    def _reopen(self) -> bool:
        with self._device_lock:
            self._shut()
            if self._closed.is_set():
                return False
            self._tap.first = None
            self._tap.last = time.monotonic()
            if not self._hanging:
                rescan()
            try:
                with quiet_stderr():
                    found = find_input(None) if self._chosen is None else find_again(self._chosen)
                    if found is None:
                        return False
                    self._open(found.index)
            except TwinInputsError as error:
                self._doubt = str(error)
                return False
            except AudioError:
                return False
            self._doubt = None
            return True

    def _shut(self) -> None:
        if self._stream is not None:
            # A stream that hangs would hang a rescan too; its device can often be opened again without one.
            self._hanging = not close_stream(self._stream) or self._hanging
            self._stream = None


class _Tap:
    """The callback that PortAudio's thread calls: copies into the ring and counts."""

    def __init__(self, ring: SampleRing, rate: int) -> None:
        self._ring, self._rate = ring, rate
        self.overflows = self.underruns = 0
        self.first: float | None = None
        self.last = time.monotonic()

    def __call__(self, samples: Samples, count: int, times: object, status: Any) -> None:
        self.last = time.monotonic()
        if self.first is None:
            self.first = self.last - count / self._rate
        if status:
            self.overflows += bool(status.input_overflow)
            self.underruns += bool(status.input_underflow)
        if self._ring.write(samples):
            self.overflows += 1


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("Error opening InputStream: ") if str(error) else "unknown"


def _warn(notice: str) -> None:
    warnings.warn(notice, AudioWarning, stacklevel=3)
