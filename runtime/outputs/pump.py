"""Moves captured sound on, to the session and to the player."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..inputs.convert import Samples, to_mono
from ..inputs.soundtrack import Soundtrack
from ..inputs.source import LiveSource
from .player import Player
from .protocols import Speaker

_PATIENCE_SECONDS = 0.1


class Listener(Protocol):
    """What takes the mono sound: a `Session`."""

    def push(self, pcm: Samples) -> None:
        """Add mono samples."""

    def finish(self) -> None:
        """End the sound."""


class Pump:
    """Moves captured sound on: mono to the session, and all of it to the player.

    Where the source gives nothing for a tenth of a second it adds silence, just enough that the session always has
    the sound of the next chunk in time: the face idles and the last word before a pause is heard.
    """

    def __init__(
        self, source: LiveSource, listener: Listener, player: Player, speaker: Speaker, reserve: float
    ) -> None:
        """Keep at least `reserve` seconds of sound ahead of what is heard."""
        self._channels, self._rate = source.channels, source.rate
        self._listener, self._player, self._reserve = listener, player, reserve
        self._soundtrack = Soundtrack(source.rate, source.channels, speaker.rate, speaker.channels)
        self._last: float | None = None

    def take(self, block: Samples, now: float) -> None:
        """Pass on float32 [samples, channels] that came at `now`."""
        self._last = now
        self._pass_on(block)

    def fill(self, now: float) -> None:
        """Add silence if it is needed at `now`."""
        if self._last is None:
            self._last = now
        lack = self._reserve - self._player.ahead
        if lack > 0.0 and now - self._last >= _PATIENCE_SECONDS:
            self._player.meter.fill(lack)
            self._pass_on(np.zeros((max(round(lack * self._rate), 1), self._channels), np.float32))

    def finish(self) -> None:
        """End the sound."""
        self._listener.finish()
        self._soundtrack.finish()
        self._player.push(self._soundtrack.take_rest())
        self._player.finish()

    def _pass_on(self, block: Samples) -> None:
        self._listener.push(to_mono(block))
        self._soundtrack.push(block)
        self._player.push(self._soundtrack.take_rest())
