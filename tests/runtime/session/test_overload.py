import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, speech
from helpers.bundles.tiny import TINY
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.errors import NumericalError, SessionError
from rap_edge.runtime.outputs.render import render
from rap_edge.runtime.session import overload
from rap_edge.runtime.session.chunk import Chunk, Mark
from rap_edge.runtime.session.overload import Overload, Rung, State
from rap_edge.runtime.session.session import Session

SPEC = TINY.with_steps(4)
SECONDS = SPEC.chunk_seconds


class Machine:
    """A virtual machine and clock: a chunk costs a fixed part and a part per step, and time passes in no other way."""

    def __init__(self, fixed: float, per_step: float) -> None:
        self.fixed, self.per_step, self.now = fixed, per_step, 100.0
        self.finished: list[float] = []

    def clock(self) -> float:
        return self.now

    def stream(self, seconds: float, policy: Overload | None = None, changes=None) -> tuple[list[Chunk], tuple]:
        """A real-time source of speech; `changes` maps chunk numbers to new costs."""
        pcm, chunks, start = speech(seconds), [], self.now

        def decode(b) -> None:
            self.now += self.fixed
            b["frames"][...] = 100
            b["magnitude"][...] = 1.0

        def denoise(b) -> None:
            self.now += self.per_step
            b["velocity"][...] = 0.0

        face = avatar(SPEC, vae_decoder=decode, dit=denoise)
        with face.session(overload=policy or Overload(), clock=self.clock) as session:
            for i in range(round(seconds / SECONDS)):
                # What was captured while a chunk was rendered is pushed behind it, at its own time.
                self.fixed, self.per_step = (changes or {}).get(i, (self.fixed, self.per_step))
                arrival = start + (i + 1) * SECONDS
                late = self.now - arrival
                self.now = arrival
                session.push(pcm[i * SPEC.chunk_samples : (i + 1) * SPEC.chunk_samples])
                self.now = max(arrival + late, arrival)
                if (i + 2) * SECONDS + start <= self.now:
                    continue  # the next one has been captured as well
                chunks += self._drain(session)
            chunks += self._drain(session)
            return chunks, session.decisions

    def _drain(self, session: Session) -> list[Chunk]:
        chunks = []
        for chunk in session.chunks():
            chunks.append(chunk)
            self.finished.append(self.now)
        return chunks


def test_a_fast_machine_renders_everything_in_full_and_decides_nothing() -> None:
    chunks, decisions = Machine(0.1 * SECONDS, 0.05 * SECONDS).stream(40 * SECONDS)
    assert decisions == ()
    assert {(chunk.mark, chunk.steps, chunk.late) for chunk in chunks} == {(Mark.GOOD, 4, False)}


def test_steps_go_first_then_the_frame_rate_then_chunks_are_dropped() -> None:
    chunks, decisions = Machine(1.3 * SECONDS, 0.2 * SECONDS).stream(60 * SECONDS)
    kinds = ["drop" if d.dropped else (d.steps, d.frame_step) for d in decisions]
    assert kinds[:4] == [(2, 1), (1, 1), (1, 2), "drop"]
    assert all(decision.reason for decision in decisions)
    dropped = [chunk for chunk in chunks if chunk.dropped]
    assert all(chunk.mark is Mark.HELD and len(chunk.frames) == 0 and chunk.audio.size for chunk in dropped)
    assert len(dropped) == sum(d.dropped for d in decisions)
    assert {d.pts for d in decisions if d.dropped} == {chunk.pts for chunk in dropped}


def test_fewer_steps_alone_are_enough_where_they_make_it_fast_enough() -> None:
    chunks, decisions = Machine(0.3 * SECONDS, 0.25 * SECONDS).stream(60 * SECONDS)
    assert not any(decision.dropped for decision in decisions)
    assert not any(chunk.late for chunk in chunks[4:12])
    assert chunks[-1].mark is Mark.REDUCED
    assert len(chunks[-1].frames) == SPEC.new_frames


def test_what_can_never_keep_up_still_shows_something_in_time() -> None:
    machine = Machine(1.5 * SECONDS, 0.0)
    chunks, _ = machine.stream(60 * SECONDS)
    over_by = [
        finished - (chunk.captured + 2 * SECONDS)  # its budget is over after one chunk, its sound after two
        for chunk, finished in list(zip(chunks, machine.finished, strict=True))[10:]
        if not chunk.dropped
    ]
    assert len(over_by) >= 20
    assert sum(over < 0 for over in over_by) >= 0.9 * len(over_by)


def test_a_lower_frame_rate_gives_every_second_frame() -> None:
    chunks, _ = Machine(1.1 * SECONDS, 0.0).stream(60 * SECONDS)
    halved = [chunk for chunk in chunks if chunk.frame_step == 2]
    assert halved
    assert all(len(chunk.frames) == SPEC.new_frames // 2 for chunk in halved)
    assert all(chunk.duration == pytest.approx(SECONDS) for chunk in halved)


def test_it_goes_back_up_once_there_is_room_again() -> None:
    fast, slow = (0.1 * SECONDS, 0.1 * SECONDS), (2.0 * SECONDS, 0.3 * SECONDS)
    chunks, decisions = Machine(*fast).stream(120 * SECONDS, changes={10: slow, 20: fast})
    assert any(chunk.mark is Mark.HELD for chunk in chunks[10:22])
    assert all(chunk.mark is Mark.GOOD for chunk in chunks[80:])
    ups = [d for d in decisions if "room" in d.reason]
    assert [(d.steps, d.frame_step) for d in ups[-3:]] == [(1, 1), (2, 1), (4, 1)]


def test_a_machine_that_is_slightly_too_slow_is_not_tossed_up_and_down() -> None:
    _, decisions = Machine(0.3 * SECONDS, 0.25 * SECONDS).stream(600 * SECONDS)
    assert len([d for d in decisions if "room" in d.reason]) <= 8


def test_the_sound_is_complete_whatever_is_dropped() -> None:
    chunks, _ = Machine(1.6 * SECONDS, 0.3 * SECONDS).stream(30 * SECONDS)
    assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), speech(30 * SECONDS))
    assert [chunk.pts for chunk in chunks] == pytest.approx([i * SECONDS for i in range(30)])


def test_a_burst_of_speech_is_no_overload() -> None:
    machine = Machine(0.5 * SECONDS, 0.05 * SECONDS)
    seen = []

    def decode(b) -> None:
        machine.now += machine.fixed
        b["magnitude"][...] = 1.0

    face = avatar(SPEC, vae_decoder=decode)
    with face.session(overload=Overload(), clock=machine.clock) as session:
        for _ in range(3):
            session.push(speech(20 * SECONDS))
            seen += session.chunks()
        assert session.decisions == ()
    assert len(seen) == 60
    assert not any(chunk.late for chunk in seen)


def test_a_chunk_that_fails_is_marked_and_the_next_one_is_good_again() -> None:
    calls = []

    def denoise(b) -> None:
        calls.append(1)
        b["velocity"][...] = np.nan if len(calls) == 3 else 0.0

    face = avatar(TINY, dit=denoise)
    with face.session(overload=Overload()) as session:
        session.push(speech(4 * TINY.chunk_seconds))
        chunks = list(session.chunks())
        assert [chunk.mark for chunk in chunks] == [Mark.GOOD, Mark.HELD, Mark.GOOD, Mark.GOOD]
        assert chunks[1].failed
        assert len(chunks[1].frames) == 0
        assert "NaN" in session.decisions[0].reason


def test_a_session_whose_chunks_all_fail_gives_up() -> None:
    def poison(b) -> None:
        b["velocity"][...] = np.nan

    with avatar(TINY, dit=poison).session(overload=Overload(failures=2)) as session:
        session.push(speech(4 * TINY.chunk_seconds))
        stream = session.chunks()
        assert [next(stream).failed, next(stream).failed] == [True, True]
        with pytest.raises(NumericalError):
            next(stream)


def test_a_session_without_a_policy_never_degrades() -> None:
    machine = Machine(3 * SECONDS, 0.0)
    face = avatar(SPEC)
    with face.session(clock=machine.clock) as session, face.session(overload=Overload()) as live:
        for each in (session, live):
            each.push(speech(3 * SECONDS))
        plain, governed = list(session.chunks()), list(live.chunks())
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(plain, governed, strict=True))
    assert {chunk.mark for chunk in plain} == {Mark.GOOD}


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(0.01, 4), st.integers(1, 6), st.floats(-3, 3)), max_size=60),
    st.integers(1, 16),
    st.integers(0, 3),
)
def test_whatever_happens_the_rules_hold(events, steps: int, waiting: int) -> None:
    policy, ladder = Overload(waiting=waiting), overload.rungs(steps)
    state, pts = overload.start(policy), 0.0
    for late_by, seconds, queue, time_left in events:
        turn = tuple(pts + i for i in range(queue))
        before = state
        state, decisions = overload.before_chunk(
            policy, ladder, state, waiting=turn, time_left=time_left, chunk_seconds=1.0
        )
        dropped = [d.pts for d in decisions if d.dropped]
        assert len(set(dropped)) == len(dropped)
        assert queue - len(dropped) <= 1 + waiting
        if dropped:
            assert state.level == len(ladder) - 1
        newest = [d for d in dropped if d != pts]
        assert newest == sorted(newest, reverse=True)
        assert newest == list(reversed(turn))[: len(newest)]
        level = state.level
        state, decision = overload.after_chunk(
            policy, ladder, state, pts=pts, late_by=late_by, render_seconds=seconds, chunk_seconds=1.0
        )
        assert abs(state.level - level) <= 1
        assert (decision is None) == (state.level == level)
        assert 0 <= state.level < len(ladder)
        assert policy.patience <= state.patience <= 256
        assert (state.level > level) <= (late_by > 0)
        if state.level < level:
            assert before.calm + 1 >= policy.patience
        pts += 1.0


@given(st.integers(1, 64))
def test_the_ladder_falls_step_by_step_and_ends_at_half_the_frame_rate(steps: int) -> None:
    ladder = overload.rungs(steps)
    assert ladder[0] == Rung(steps)
    assert ladder[-1] == Rung(1, 2)
    assert all(a.steps > b.steps for a, b in pairwise(ladder[:-1]))


@given(st.lists(st.floats(0.5, 1.5), min_size=1, max_size=50), st.floats(0.1, 2.0))
def test_a_chunk_is_due_after_its_budget_or_one_chunk_after_the_last(gaps: list[float], budget: float) -> None:
    ready, previous = 0.0, None
    for gap in gaps:
        ready += gap
        due = overload.due_after(previous, ready, budget, 1.0)
        assert due >= ready + budget
        if previous is not None:
            assert due >= previous + 0.995 - 1e-9
            assert due == pytest.approx(max(ready + budget, previous + 0.995))
        previous = due


@pytest.mark.parametrize(
    "wrong", [{"waiting": -1}, {"patience": 0}, {"room": 1.0}, {"budget": 0.0}, {"failures": -1}], ids=str
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(SessionError):
        Overload(**wrong)


def test_the_state_is_a_value() -> None:
    state = overload.start(Overload())
    assert isinstance(state, State)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.level = 3  # type: ignore[misc]


def test_a_sink_is_given_every_frame_and_the_last_good_one_where_a_chunk_is_missing() -> None:
    calls = []

    def denoise(b) -> None:
        calls.append(1)
        b["velocity"][...] = np.nan if len(calls) == 3 else 0.0

    class Kept:
        rate, channels = TINY.sample_rate, 1

        def __init__(self) -> None:
            self.frames, self.sound = [], []

        def write(self, frames, audio) -> None:
            self.frames.append(frames.copy())
            self.sound.append(audio)

        def close(self) -> None:
            pass

    class Source:
        rate, channels, duration = TINY.sample_rate, 1, None

        def __iter__(self):
            yield speech(4 * TINY.chunk_seconds)[:, None]

    sink = Kept()
    with avatar(TINY, dit=denoise) as face:
        render(face, Source(), sink, overload=Overload())
    frames = np.concatenate(sink.frames)
    assert len(frames) == 4 * TINY.new_frames
    assert len(np.concatenate(sink.sound)) == 4 * TINY.chunk_samples
    missing = frames[TINY.new_frames : 2 * TINY.new_frames]
    assert all(np.array_equal(frame, frames[TINY.new_frames - 1]) for frame in missing)


@given(st.integers(1, 40), st.integers(1, 3))
def test_a_chunk_at_a_lower_rate_fills_its_time_at_the_full_one(count: int, step: int) -> None:
    kept = np.arange(count)[::step].astype(np.uint8)[:, None, None, None]
    chunk = Chunk(kept, np.empty(0, np.float32), 0.0, False, {}, duration=count / 25, frame_step=step)
    full = chunk.at_full_rate(25, np.zeros((1, 1, 1), np.uint8))[:, 0, 0, 0]
    assert full.tolist() == [i - i % step for i in range(count)]
