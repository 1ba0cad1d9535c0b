"""An hour of playing in virtual time. The sound's samples carry their own presentation time, so what is heard is known
without asking the code under test."""

import dataclasses
import heapq
from collections import deque

import numpy as np
import pytest
from helpers.bundles.tiny import TINY
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.outputs.clock import STRONGEST_STRETCH, Pacer, SmoothClock, SoundMap
from rap_edge.runtime.outputs.player import Player
from rap_edge.runtime.outputs.protocols import Showing, SilentSpeaker
from rap_edge.runtime.outputs.pump import Pump
from rap_edge.runtime.outputs.stretch import Stretcher
from rap_edge.runtime.session.chunk import Chunk, Mark

RATE = 1000
SECONDS = TINY.chunk_seconds
COST = 0.3
RESERVE = SECONDS + 0.45
QUIET = 1e-7  # of a second: even an hour is below the threshold of silence


class World:
    """A capture device, a renderer, a speaker and a display whose clocks and mishaps are ours."""

    def __init__(self, *, capture_ppm: float, speaker_ppm: float, mishaps: bool, live: bool = True) -> None:
        self.now, self.mishaps = 0.0, mishaps
        self.capture_pace, self.speaker_pace = 1 + capture_ppm * 1e-6, 1 + speaker_ppm * 1e-6
        self.rate, self.channels, self.live = RATE, 2, live
        self.queue: deque[np.ndarray] = deque()
        self.heard_at = 0.0
        self.written = self.consumed = 0.0
        self.starved = 0.0
        self.offsets: list[float] = []
        self.latencies: list[float] = []
        self.marks: list[Mark] = []
        self.events: list[tuple[float, int, float]] = []
        self.pushed = self.rendered = 0
        self.busy_until = self.taken = 0.0
        self.captured: list[tuple[float, float]] = []
        self.player = Player(TINY, self, self, latency=RESERVE + 0.1 if live else None, clock=lambda: self.now)
        self.pump = Pump(self, self, self.player, self, RESERVE)

    # The session: chunks are done some time after their sound is complete.
    def push(self, pcm: np.ndarray) -> None:
        self.pushed += len(pcm)
        while (self.rendered + 1) * SECONDS * RATE <= self.pushed:
            stall = 2.5 if self.mishaps and self.rendered % 500 == 250 else 0.0
            cost = COST * (1 + 0.3 * np.sin(self.rendered)) + stall
            self.busy_until = max(self.now, self.busy_until) + cost
            heapq.heappush(self.events, (self.busy_until, self.rendered, cost))
            self.rendered += 1

    def finish(self) -> None:
        pass

    def deliver(self) -> None:
        while self.events and self.events[0][0] <= self.now:
            _, index, _ = heapq.heappop(self.events)
            periods = (np.arange(TINY.new_frames) + index * TINY.new_frames) % 251
            frames = periods.astype(np.uint8)[:, None, None, None]
            chunk = Chunk(frames, np.empty(0, np.float32), index * SECONDS, False, {}, duration=SECONDS)
            self.player.add(chunk)

    # The speaker: consumes at its own pace; what it tells moves in steps of 20 ms.
    def write(self, samples: np.ndarray) -> None:
        self.queue.append(samples[:, 0])
        self.written += len(samples) / RATE

    @property
    def played(self) -> float:
        return self.consumed - self.consumed % 0.02

    def consume(self, seconds: float) -> None:
        wanted = seconds * self.speaker_pace
        there = self.written - self.consumed
        if self.written:
            self.starved += max(wanted - there, 0.0)
        self.consumed += min(wanted, there)
        passed = self.consumed - self.heard_at
        while self.queue and len(self.queue[0]) / RATE <= passed:
            block = self.queue.popleft()
            self.heard_at += len(block) / RATE
            passed -= len(block) / RATE

    @property
    def heard(self) -> float | None:
        """The presentation time that the loudspeaker gives off now, read off the sample itself."""
        if not self.queue:
            return None
        position = (self.consumed - self.heard_at) * RATE
        block = self.queue[0]
        low = min(int(position), len(block) - 1)
        high = min(low + 1, len(block) - 1)
        sample = float(block[low]) + (position - low) * (block[high] - block[low])
        return sample / QUIET if sample > 0 else None

    # The display.
    def poll(self) -> bool:
        return True

    def show(self, frame: np.ndarray, showing: Showing) -> None:
        self.marks.append(showing.mark)
        if showing.mark is Mark.HELD:
            return
        assert int(frame[0, 0, 0]) == round(showing.pts * TINY.fps) % 251, "a frame of another moment"
        if (heard := self.heard) is not None:
            self.offsets.append(showing.pts - heard)

    def close(self) -> None:
        pass

    def run(self, seconds: float) -> None:
        """Capture 40 ms blocks: eight seconds of speech, two of silence, bursts and gaps."""
        block, ticks = 0.04, 0
        silence = np.zeros((round(block * RATE), 2), np.float32)
        voice = silence + np.array([0.0, 1.0], np.float32)
        late: deque[np.ndarray] = deque()
        while self.now < seconds:
            while self.taken + block <= self.now * self.capture_pace:
                self.taken += block
                minute = self.taken % 60
                if self.mishaps and 890 < self.taken % 900 < 893:
                    continue  # unplugged for three seconds
                late.append(voice if self.taken % 10 < 8 else silence)
                if self.mishaps and 30 < minute < 30.25:
                    continue  # the network holds it back: a burst follows
                while late:
                    self.take(late.popleft())
            self.pump.fill(self.now)
            self.deliver()
            wanted = self.player.tick()
            assert wanted is not None
            ticks += 1
            if self.mishaps and ticks % 20_000 == 0:
                wanted = 0.15  # the display's thread is held up
            self.now += wanted
            self.consume(wanted)
            if ticks % 200 == 0:
                self.latencies.append(self.pushed / RATE - (self.heard or 0.0))

    def take(self, samples: np.ndarray) -> None:
        self.pump.take(samples, self.now)


def stamped(world: World) -> World:
    """Let every sample that reaches the player carry its presentation time."""
    push, count = world.player.push, [0]

    def stamp(samples: np.ndarray) -> None:
        samples = samples.copy()
        samples[:, 0] = (count[0] + np.arange(len(samples))) / RATE * QUIET
        count[0] += len(samples)
        push(samples)

    world.player.push = stamp
    return world


HOUR = 3600.0


@pytest.mark.parametrize(
    ("capture", "speaker"),
    [(200.0, 0.0), pytest.param(0.0, 200.0, marks=pytest.mark.slow)],
    ids=["capture fast", "speaker fast"],
)
def test_an_hour_of_skew_bursts_stalls_and_silence_keeps_lips_and_sound_together(capture, speaker) -> None:
    world = stamped(World(capture_ppm=capture, speaker_ppm=speaker, mishaps=True))
    world.run(HOUR)
    offsets, latencies = np.array(world.offsets), np.array(world.latencies)
    assert len(offsets) > 0.97 * HOUR * TINY.fps
    assert np.abs(offsets).max() <= 0.040
    assert latencies[10:].max() <= RESERVE + 0.1 + 1.0
    assert np.median(latencies) == pytest.approx(RESERVE + 0.1, abs=0.1)
    assert world.starved < 1.0
    assert 0 < world.marks.count(Mark.HELD) < 40
    times = world.player.meter.times()
    assert times.av_offset_max_ms <= 40.0
    assert times.latency_p95_ms <= 1e3 * (RESERVE + 0.5)
    assert times.held_seconds < 0.015 * HOUR


def test_skew_alone_is_evened_out_without_cutting_starving_or_filling() -> None:
    for capture, speaker in ((200.0, -200.0), (-200.0, 200.0)):
        world = stamped(World(capture_ppm=capture, speaker_ppm=speaker, mishaps=False))
        world.run(400.0)
        times = world.player.meter.times()
        assert world.starved < 0.01
        assert (times.cut_seconds, times.filled_seconds, times.held_seconds) == (0.0, 0.0, pytest.approx(0.0, abs=0.5))
        assert np.array(world.latencies)[-100:] == pytest.approx(RESERVE + 0.1, abs=0.08)


def test_without_a_target_a_fast_capture_clock_adds_latency() -> None:
    """The control: what the pacer prevents does happen without it."""
    world = stamped(World(capture_ppm=2000.0, speaker_ppm=0.0, mishaps=False, live=False))
    world.run(600.0)
    assert world.latencies[-1] - world.latencies[10] > 1.0


counts = st.lists(st.floats(0.0, 0.1), max_size=100)


@given(counts, st.floats(0.001, 0.05))
def test_the_smooth_clock_rises_and_stays_near_its_counter(steps: list[float], tick: float) -> None:
    clock, counted, now, before = SmoothClock(), 0.0, 0.0, 0.0
    for step in steps:
        counted, now = counted + step, now + tick
        value = clock.read(counted, now)
        assert before <= value
        assert counted <= value <= max(counted + 0.03, before)
        before = value


@given(st.floats(0.005, 0.025), st.floats(0.99, 1.01))
def test_the_smooth_clock_hides_the_steps_of_a_device(step: float, pace: float) -> None:
    clock, errors = SmoothClock(), []
    for i in range(4000):
        true = i * 0.007 * pace
        errors.append(clock.read(true - true % step, i * 0.007) - true)
    assert np.ptp(errors[1000:]) < 0.75 * step + 0.003
    assert np.abs(errors[1000:]).max() <= 0.03


piece = st.tuples(st.floats(0.001, 0.1), st.floats(0.99, 1.01), st.floats(0.0, 1.0))


@given(st.lists(piece, min_size=1, max_size=200))
def test_the_sound_map_follows_stretching_and_cuts(found) -> None:
    sounds, heard, pts, marks = SoundMap(), 0.0, 0.0, []
    for seconds, pace, cut in found:
        pts += cut
        sounds.add(seconds, pts, pts + seconds * pace)
        marks.append((heard + seconds / 2, pts + seconds / 2 * pace))
        heard, pts = heard + seconds, pts + seconds * pace
    for at, expected in marks:
        assert sounds.pts(at) == pytest.approx(expected)
    assert sounds.pts(heard + 5.0) == pytest.approx(pts)


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=50), st.floats(0.1, 5.0))
def test_the_pacer_never_stretches_audibly_and_pulls_towards_the_target(latencies: list[float], target: float) -> None:
    pacer = Pacer(target)
    for i, latency in enumerate(latencies):
        pacer.observe(latency, 0.5 * i)
        assert abs(pacer.stretch - 1.0) <= STRONGEST_STRETCH + 1e-12
        assert (pacer.stretch > 1.0) <= (pacer.surplus > 0.0)
        assert pacer.cuts(silent=True) >= pacer.cuts(silent=False)
        assert pacer.surplus <= latency - target + 1e-9


def test_a_burst_that_passes_is_not_latency_and_is_left_alone() -> None:
    pacer = Pacer(1.0)
    for i in range(40):
        pacer.observe(1.0 + (1.5 if i % 10 == 0 else 0.0), 0.1 * i)
    assert pacer.surplus == pytest.approx(0.0)
    assert not pacer.cuts(silent=True)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.floats(0.995, 1.005))
def test_the_stretcher_gives_the_same_sound_in_any_split(sizes: list[int], ratio: float) -> None:
    sound = np.random.default_rng(0).standard_normal((sum(sizes), 2)).astype(np.float32)
    whole = Stretcher(2).push(sound, ratio)
    split, parts, start = Stretcher(2), [], 0
    for size in sizes:
        parts.append(split.push(sound[start : start + size], ratio))
        start += size
    joined = np.concatenate(parts)
    assert len(joined) == pytest.approx(len(whole), abs=1)
    shared = min(len(joined), len(whole))
    np.testing.assert_allclose(joined[:shared], whole[:shared], atol=2e-2)


def test_a_stretched_tone_keeps_its_shape_and_a_ratio_of_one_changes_nothing() -> None:
    rate, tone = 48000, 1000.0
    sound = np.sin(2 * np.pi * tone * np.arange(rate) / rate).astype(np.float32)[:, None]
    stretched = Stretcher(1).push(sound, 1.004)[:, 0]
    ideal = np.sin(2 * np.pi * tone * 1.004 * np.arange(len(stretched)) / rate)
    assert len(stretched) == pytest.approx(rate / 1.004, abs=3)
    assert 10 * np.log10(np.mean(ideal**2) / np.mean((stretched - ideal) ** 2)) > 60
    same = Stretcher(1).push(sound, 1.0)
    assert np.array_equal(same, sound[: len(same)])
    assert len(same) >= len(sound) - 3


def test_a_speaker_without_a_device_hears_at_the_clocks_pace() -> None:
    now = [10.0]
    speaker = SilentSpeaker(RATE, 1, clock=lambda: now[0])
    now[0] += 5.0
    assert speaker.played == 0.0
    speaker.write(np.zeros((RATE, 1), np.float32))
    now[0] += 0.4
    assert speaker.played == pytest.approx(0.4)
    now[0] += 5.0
    assert speaker.played == pytest.approx(1.0)


def test_a_chunk_that_is_late_is_held_and_then_joined_where_the_sound_is() -> None:
    world = stamped(World(capture_ppm=0.0, speaker_ppm=0.0, mishaps=False))
    world.run(5.0)
    world.busy_until = world.now + 1.5
    world.run(9.0)
    assert Mark.HELD in world.marks
    world.run(12.0)
    assert world.marks[-1] is Mark.GOOD
    assert np.abs(world.offsets).max() <= 0.04
    held = world.player.meter.times().held_seconds
    assert 0.3 < held < 1.5 + 2 * SECONDS


def test_a_dropped_chunk_shows_the_last_good_frame_marked_and_the_sound_goes_on() -> None:
    world = stamped(World(capture_ppm=0.0, speaker_ppm=0.0, mishaps=False))
    add = world.player.add

    def drop_the_third(chunk: Chunk) -> None:
        if round(chunk.pts / SECONDS) == 3:
            chunk = dataclasses.replace(chunk, frames=chunk.frames[:0], dropped=True)
        add(chunk)

    world.player.add = drop_the_third
    world.run(6.0)
    assert world.marks.count(Mark.HELD) == 1
    assert world.starved == 0.0
    times = world.player.meter.times()
    assert times.dropped_chunks == 1
    assert times.held_seconds == pytest.approx(SECONDS, abs=0.05)
