"""`Loudspeaker`: the system's sound output, through SDL, as the master clock."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from .sdl import load_sdl, sdl_error

_BUFFER_SAMPLES = 1024
# A device takes a buffer every 20 ms or so; one that takes none for this long is away.
_STALLED, _RETRY = 1.0, 2.0


class Loudspeaker:
    """Plays queued sound; while the device is away, the sound passes unheard at the pace of the clock."""

    def __init__(self, rate: int = 48000, channels: int = 1, clock: Callable[[], float] = monotonic) -> None:
        """Open the system's choice of device for float32 sound of `rate` Hz and 1 or 2 channels.

        Raises:
            OutputError: SDL is not installed, or there is no sound output.
        """
        self.rate, self.channels = rate, channels
        self._sdl: Any = load_sdl()
        self._clock = clock
        self._written = 0
        self._taken, self._taken_at = 0, clock()
        self._device, self._buffer = 0, _BUFFER_SAMPLES
        self._heard = 0.0
        self._retry_at = 0.0
        if self._sdl.SDL_InitSubSystem(self._sdl.SDL_INIT_AUDIO) != 0 or not self._open_device():
            reason = sdl_error(self._sdl)
            self._sdl.SDL_QuitSubSystem(self._sdl.SDL_INIT_AUDIO)
            raise OutputError(f"There is no sound output ({reason}); connect one, or pass -o out.mp4 for a video.")
        self._open = True

    def write(self, samples: NDArray[np.float32]) -> None:
        """Queue float32 [samples, channels]; see `Speaker.write`."""
        self._advance()
        self._written += len(samples)
        if self._device:
            sound = np.ascontiguousarray(samples, np.float32)
            self._sdl.SDL_QueueAudio(self._device, sound.ctypes.data_as(ctypes.c_void_p), sound.nbytes)

    @property
    def played(self) -> float:
        """Seconds of the written sound that have been heard; see `Speaker.played`."""
        self._advance()
        return self._heard

    def close(self) -> None:
        """Stop at once; may be called twice."""
        if self._open:
            self._open = False
            self._close_device()
            self._sdl.SDL_QuitSubSystem(self._sdl.SDL_INIT_AUDIO)

    def _advance(self) -> None:
        now = self._clock()
        if not self._device:
            self._pass_unheard(now)
            return
        queued = int(self._sdl.SDL_GetQueuedAudioSize(self._device)) // (4 * self.channels)
        if (taken := self._written - queued) != self._taken:
            self._taken, self._taken_at = taken, now
        elif queued and now - self._taken_at > _STALLED:
            # Whatever was in the queue is lost with the device.
            self._close_device()
            self._taken_at, self._retry_at = now, now
            return
        # The device holds one buffer that it plays and one that it has just taken.
        since = min((now - self._taken_at) * self.rate, float(self._buffer))
        self._heard = max(self._heard, min(taken - self._buffer + since, float(self._written)) / self.rate)

    def _pass_unheard(self, now: float) -> None:
        self._heard = min(self._heard + now - self._taken_at, self._written / self.rate)
        self._taken_at = now
        if now >= self._retry_at:
            self._retry_at = now + _RETRY
            if self._open_device():
                self._taken, self._heard = self._written, self._written / self.rate

    def _open_device(self) -> bool:
        sdl = self._sdl
        wanted = sdl.SDL_AudioSpec(self.rate, sdl.AUDIO_F32SYS, self.channels, _BUFFER_SAMPLES)
        given = sdl.SDL_AudioSpec(0, 0, 0, 0)
        self._device = sdl.SDL_OpenAudioDevice(None, 0, ctypes.byref(wanted), ctypes.byref(given), 0)
        if not self._device:
            return False
        self._buffer = int(given.samples)
        sdl.SDL_PauseAudioDevice(self._device, 0)
        return True

    def _close_device(self) -> None:
        if self._device:
            self._sdl.SDL_CloseAudioDevice(self._device)
            self._device = 0
