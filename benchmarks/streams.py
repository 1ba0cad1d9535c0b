"""What the endurance checks stream from and to, and what they read off the process (Linux: /proc)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime import Avatar, LiveTimes, Player, SilentSpeaker
from rap_edge.runtime.outputs.protocols import Showing
from rap_edge.runtime.outputs.pump import Pump
from rap_edge.runtime.session.overload import Overload

RATE = 16000
SKEW = 200e-6


class EndlessSpeech:
    """A source of `seconds` of noise: two seconds of every three, then a pause."""

    rate, channels, live = RATE, 1, False

    def __init__(self, seconds: float, on_second: Callable[[float], None] = lambda share: None) -> None:
        """`on_second` is told, before every second, the share that has been given."""
        self.duration = seconds
        self._on_second = on_second
        self._noise = np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype(np.float32)[:, None]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for second in range(int(self.duration)):
            self._on_second(second / self.duration)
            yield self._noise * np.float32(second % 3 != 2)

    def close(self) -> None:
        """Nothing to let go of."""


class Nowhere:
    """A sink and a display that counts frames; as a display it is closed after `limit` of them."""

    rate, channels = RATE, 1

    def __init__(self, limit: int | None = None) -> None:
        self.frames = 0
        self._limit = limit

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        self.frames += len(frames)

    def show(self, frame: NDArray[np.uint8], showing: Showing) -> None:
        self.frames += 1

    def poll(self) -> bool:
        return self._limit is None or self.frames < self._limit

    def close(self) -> None:
        """Nothing to complete."""


def play_in_virtual_time(avatar: Avatar, source: EndlessSpeech, display: Nowhere) -> LiveTimes:
    """The live loop without its threads: capture in blocks of 40 ms, by a clock that is 200 ppm fast."""
    now = 0.0
    spec, size = avatar.spec, RATE // 25
    blocks = (second[i : i + size] for second in source for i in range(0, RATE, size))
    speaker = SilentSpeaker(48000, 2, clock=lambda: now)
    reserve = 1.5 * spec.chunk_seconds
    with avatar.session(sample_rate=RATE, overload=Overload(), clock=lambda: now) as session:
        player = Player(spec, speaker, display, latency=reserve + 0.1, clock=lambda: now)
        pump = Pump(source, session, player, speaker, reserve)
        taken, ended = 0, False
        while (wanted := player.tick()) is not None:
            now += wanted
            while not ended and taken / 25 <= now * (1 + SKEW):
                block = next(blocks, None)
                if block is None:
                    pump.finish()
                    ended = True
                else:
                    pump.take(block, now)
                    taken += 1
            for chunk in session.chunks():
                player.add(chunk)
        return player.meter.times(session.decisions)


def resident_mb(process: int | str = "self") -> float:
    """Resident memory of a process in MiB."""
    return _status(process, "VmRSS:") / 1024


def handles(process: int | str = "self") -> tuple[int, int]:
    """Open files and threads of a process; of this one the threads that Python knows."""
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return files, threading.active_count() if process == "self" else _status(process, "Threads:")


def _status(process: int | str, field: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
