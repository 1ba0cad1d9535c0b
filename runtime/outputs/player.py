"""Shows and sounds in real time: a frame is shown when its own sound is heard, never the other way round.

In: sound as it is captured, chunks as they are rendered. Out: a speaker, the master clock, and a display.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from ..inputs.convert import to_mono
from ..inputs.silence import SilenceDetector
from ..reports.live_report import LiveMeter
from ..session.chunk import Chunk, Mark
from ..spec import ModelSpec
from .clock import Pacer, SmoothClock, SoundMap
from .protocols import Display, Showing, SilentSpeaker, Speaker
from .stretch import Stretcher

__all__ = ["Display", "Mark", "Player", "Showing", "SilentSpeaker", "Speaker"]

_QUEUE_SECONDS = 0.2
_LONGEST_SLEEP = 0.02
_BLOCKS_PER_SECOND = 25


class Player:
    """Plays one stream.

    Sound goes on whatever happens to the picture. A moment whose chunk is late, failed or was dropped shows the last
    good frame, marked `HELD`; frames whose moment has passed are not shown.

    `push`, `add` and `finish` may be called from any thread, `tick`, `run` and `close` from the display's alone.
    """

    def __init__(
        self,
        spec: ModelSpec,
        speaker: Speaker,
        display: Display,
        meter: LiveMeter | None = None,
        *,
        portrait: NDArray[np.uint8] | None = None,
        latency: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Play chunks of `spec`.

        Args:
            spec: of the chunks.
            speaker, display: where sound and frames go; `close` closes both.
            meter: counts what is shown.
            portrait: uint8 [H, W, 3], held where no good frame has been there yet.
            latency: seconds from capture to ear that are held, for sound that is captured in real time: drifting
                clocks are evened out by resampling, and a surplus is cut out of silence. None is for sound that comes
                faster than it plays: it starts with the first chunk and plays as it is.
            clock: monotonic seconds.
        """
        self.meter = LiveMeter() if meter is None else meter
        self._fps, self._latency, self._clock = spec.fps, latency, clock
        self._speaker, self._display = speaker, display
        self._pacer = None if latency is None else Pacer(latency)
        self._smooth, self._sounds = SmoothClock(), SoundMap()
        self._stretcher, self._silence = Stretcher(speaker.channels), SilenceDetector(speaker.rate)
        self._lock = threading.Lock()
        self._sound: deque[NDArray[np.float32]] = deque()
        self._chunks: deque[Chunk] = deque()
        self._arrivals: deque[tuple[float, float]] = deque()
        self._pushed = self._waiting = 0
        self._fed = self._heard = 0.0
        self._started = self._finished = False
        self._good = portrait
        self._shown: tuple[int, float] | None = None
        self._mark: Mark | None = None

    @property
    def ahead(self) -> float:
        """Seconds of sound that have been pushed and not yet heard."""
        with self._lock:
            return self._waiting / self._speaker.rate + max(self._fed - self._heard, 0.0)

    def push(self, samples: NDArray[np.float32]) -> None:
        """Add captured sound, float32 [samples, channels] at the speaker's rate."""
        now = self._clock()
        with self._lock:
            size = max(self._speaker.rate // _BLOCKS_PER_SECOND, 1)
            self._sound.extend(samples[i : i + size] for i in range(0, len(samples), size))
            self._pushed += len(samples)
            self._waiting += len(samples)
            self._arrivals.append((self._pushed / self._speaker.rate, now))

    def add(self, chunk: Chunk) -> None:
        """Add the next chunk of pictures; its sound is not used."""
        with self._lock:
            unshown = chunk.pts + chunk.duration <= self._heard
            if not unshown:
                self._chunks.append(chunk)
        self.meter.add_chunk(chunk, unshown=unshown and not chunk.dropped and not chunk.failed)

    def finish(self) -> None:
        """No more sound will come; the player is over when all of it has been heard."""
        self._finished = True

    def tick(self) -> float | None:
        """Feed the speaker and show what is due.

        Returns:
            Seconds after which it wants to be called again, at most 0.02, or None: everything has been heard, or the
            display has been closed.

        Raises:
            OutputError: the speaker or the display is gone.
        """
        if not self._display.poll():
            return None
        now = self._clock()
        if not self._started:
            if not self._may_start():
                return _LONGEST_SLEEP / 2
            self._started = True
        played = self._speaker.played
        steady = self._smooth.read(played, now)
        with self._lock:
            self._heard = heard = self._sounds.pts(steady)
        self._feed(played, steady, now)
        self._show(heard, now)
        if self._finished and not self._sound and self._sounds.end - played < 0.01:
            return None
        next_frame = (int(heard * self._fps + 1e-6) + 1) / self._fps - heard
        return min(max(next_frame, 0.001), _LONGEST_SLEEP)

    def run(self) -> None:
        """Tick until it is over; raises what `tick` raises."""
        pause = threading.Event()
        while (wanted := self.tick()) is not None:
            pause.wait(wanted)

    def close(self) -> None:
        """Close speaker and display; may be repeated."""
        self._speaker.close()
        self._display.close()

    def _may_start(self) -> bool:
        with self._lock:
            if self._finished:
                return True
            if self._latency is None:
                return bool(self._chunks)
            return self._pushed / self._speaker.rate >= self._latency

    def _feed(self, played: float, steady: float, now: float) -> None:
        if self._pacer is not None and not self._finished:
            latency = self._waiting / self._speaker.rate + self._sounds.end - steady
            self._pacer.observe(latency, now)
        while self._sounds.end - played < _QUEUE_SECONDS:
            with self._lock:
                if not self._sound:
                    return
                block = self._sound.popleft()
                self._waiting -= len(block)
            ratio = 1.0
            if self._pacer is not None:
                ratio = self._pacer.stretch
                silent = self._silence.is_silent(to_mono(block))
                if not self._finished and self._pacer.cuts(silent):
                    # A quarter of the block: a larger step would be seen as a jump of the picture.
                    surplus = len(block) // 4
                    block = block[surplus:]
                    self._fed += surplus / self._speaker.rate
                    self._pacer.cut(surplus / self._speaker.rate)
                    self.meter.cut(surplus / self._speaker.rate)
            stretched = self._stretcher.push(block, ratio)
            self._speaker.write(stretched)
            written = len(stretched) / self._speaker.rate
            with self._lock:
                self._sounds.add(written, self._fed, self._fed + written * ratio)
                self._fed += written * ratio

    def _show(self, heard: float, now: float) -> None:
        period = int(heard * self._fps + 1e-6)
        if self._shown is not None and period <= self._shown[0]:
            return
        passed = 1 if self._shown is None else period - self._shown[0]
        if heard * self._fps - period > 0.5 and self._chunk_at((period + 1) / self._fps) is not None:
            # Nobody looked in time: the next frame is nearer to the sound than this one.
            period, passed = period + 1, passed + 1
        moment = period / self._fps
        chunk = self._chunk_at(moment)
        if chunk is None or not len(chunk.frames):
            self.meter.hold(passed / self._fps)
            self._latency_of(moment, now)
            if self._good is not None and self._mark is not Mark.HELD:
                self._display.show(self._good, Showing(moment, Mark.HELD))
            self._mark, self._shown = Mark.HELD, (period, now)
            return
        index = (period - round(chunk.pts * self._fps)) // chunk.frame_step
        frame = chunk.frames[min(index, len(chunk.frames) - 1)].view()
        frame.flags.writeable = False
        self._display.show(frame, Showing(moment, chunk.mark))
        jitter = None
        if self._shown is not None and self._mark is not Mark.HELD:
            jitter = now - self._shown[1] - passed / self._fps
            self.meter.skip(passed - 1)
        self.meter.add_frame(offset=moment - heard, jitter=jitter, latency=self._latency_of(moment, now))
        self._good, self._mark, self._shown = frame, chunk.mark, (period, now)

    def _chunk_at(self, moment: float) -> Chunk | None:
        half = 0.5 / self._fps
        with self._lock:
            while self._chunks and self._chunks[0].pts + self._chunks[0].duration <= moment + half:
                self._chunks.popleft()
            if self._chunks and self._chunks[0].pts <= moment + half:
                return self._chunks[0]
            return None

    def _latency_of(self, moment: float, now: float) -> float | None:
        with self._lock:
            while self._arrivals and self._arrivals[0][0] <= moment:
                self._arrivals.popleft()
            if not self._arrivals:
                return None
            until, at = self._arrivals[0]
            return now - at + (until - moment)
