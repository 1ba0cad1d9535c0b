"""One media clock, with audio as its master: arithmetic alone, so that a test can run it through an hour in seconds.

The speaker counts what has been heard. `SmoothClock` turns its coarse steps into a steady time, `SoundMap` turns time
heard into presentation time, and `Pacer` says how fast to play so that a capture clock that runs faster or slower
than the speaker's neither starves it nor adds latency.
"""

from __future__ import annotations

from bisect import bisect_right

# Resampling by half a percent is a twelfth of a semitone: too little to hear in speech.
STRONGEST_STRETCH = 0.005
_STRETCH_PER_SECOND = 0.05
_SETTLING_SECONDS = 0.5
_LARGEST_LEAD = 0.03
_WINDOW_SECONDS = 2.0


class SmoothClock:
    """Steady, monotone seconds from a counter that moves in steps, as a sound device's does.

    The time runs at the pace of the monotonic clock and is drawn towards the counter. It is never behind the counter
    and never more than 30 ms ahead, so a device that stops takes it along.
    """

    def __init__(self) -> None:
        """Start at 0."""
        self._value = 0.0
        self._asked: float | None = None

    def read(self, counted: float, now: float) -> float:
        """The time at `now` (monotonic seconds), when the counter shows `counted` seconds."""
        passed = 0.0 if self._asked is None else max(now - self._asked, 0.0)
        self._asked = now
        predicted = self._value + passed
        # A counter in steps of s seconds is s / 2 behind on average: the pull is weak, so that single steps vanish.
        predicted += (counted - predicted) * min(passed / _SETTLING_SECONDS, 1.0)
        self._value = max(min(predicted, counted + _LARGEST_LEAD), counted, self._value)
        return self._value


class SoundMap:
    """Which moment of the stream is heard when so many seconds of sound have left the speaker.

    Piecewise linear: sound is stretched a little, and silence may be cut out.
    """

    def __init__(self) -> None:
        """Nothing has been written yet."""
        self._starts: list[float] = []
        self._pieces: list[tuple[float, float]] = []
        self.end = 0.0

    def add(self, seconds: float, pts: float, until: float) -> None:
        """`seconds` of sound were written that hold the stream from `pts` until `until`."""
        self._starts.append(self.end)
        self._pieces.append((pts, (until - pts) / seconds if seconds > 0.0 else 0.0))
        self.end += seconds

    def pts(self, heard: float) -> float:
        """The presentation time that is heard after `heard` seconds of sound; asked for rising values only."""
        index = bisect_right(self._starts, heard) - 1
        if index < 0:
            return 0.0
        if index > 64:
            del self._starts[:index], self._pieces[:index]
            index = 0
        pts, pace = self._pieces[index]
        return pts + (min(heard, self.end) - self._starts[index]) * pace


class Pacer:
    """Keeps the time from capture to ear at a target, however the clocks drift and whatever comes in bursts.

    It looks at the least latency of the last seconds: what a burst adds passes by itself, what is left at the lowest
    point does not. A small surplus or lack is stretched away, at most half a percent; a larger surplus is cut out of
    silence, and one that is too large to wait for a pause is cut at once.
    """

    def __init__(self, target: float, *, cut_silence: float = 0.15, cut_speech: float = 2.0) -> None:
        """Hold `target` seconds; cut silence beyond a surplus of `cut_silence`, speech beyond `cut_speech`."""
        self.target = target
        self._cut_silence, self._cut_speech = cut_silence, cut_speech
        self._lowest = self._before = float("inf")
        self._since: float | None = None

    def observe(self, latency: float, now: float) -> None:
        """Take note of the seconds between what has been captured and what is heard, at `now`."""
        if self._since is None or now - self._since >= _WINDOW_SECONDS / 2:
            self._since, self._before, self._lowest = now, self._lowest, latency
        self._lowest = min(self._lowest, latency)

    @property
    def surplus(self) -> float:
        """Seconds of latency beyond the target; negative is a lack."""
        lowest = min(self._lowest, self._before)
        return 0.0 if lowest == float("inf") else lowest - self.target

    @property
    def stretch(self) -> float:
        """Stream seconds per second of sound: more than 1 plays faster and takes latency away."""
        wanted = self.surplus * _STRETCH_PER_SECOND
        return 1.0 + min(max(wanted, -STRONGEST_STRETCH), STRONGEST_STRETCH)

    def cuts(self, silent: bool) -> bool:
        """Whether to leave the next piece of sound out."""
        return self.surplus > (self._cut_silence if silent else self._cut_speech)

    def cut(self, seconds: float) -> None:
        """So much sound was left out, and so the latency has fallen."""
        self._lowest -= seconds
        self._before -= seconds
