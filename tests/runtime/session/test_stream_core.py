"""The rules of an avatar stream in a simulated clock: what is seen and heard, frame by frame."""

import numpy as np
import pytest
from helpers.bundles.sessions import portrait, speech
from helpers.bundles.streams import LIVELY, RATE, SimulatedStream, events, heard, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.loop.carry import LoopState
from rap_edge.runtime.session.chunk import Mark
from rap_edge.runtime.session.idle_reel import IdleReel
from rap_edge.runtime.session.overload import Overload
from rap_edge.runtime.session.stream_core import Ended, Interrupted, Started, StreamCore

PER_FRAME = LIVELY.samples_per_frame
CHUNK = LIVELY.new_frames


def settled(**settings_of) -> SimulatedStream:
    """A stream whose reel is complete."""
    stream = SimulatedStream(**settings_of)
    stream.frames(2)
    return stream


def spoken(frames) -> list:
    return [frame for frame in frames if frame.utterance is not None]


def test_what_is_said_is_heard_whole_and_in_step_with_its_picture() -> None:
    stream, said = settled(), speech(1.3)
    stream.say(said)
    frames = spoken(stream.frames(60))
    assert len(frames) == int(np.ceil(1.3 * LIVELY.fps))
    np.testing.assert_array_equal(heard(frames)[: said.size], said)
    assert not heard(frames)[said.size :].any()
    # The tiny model's picture is as bright as its sound is loud.
    idle = seen(stream.frames(1)).mean()
    assert all(frame.picture.mean() > idle + 5 for frame in frames[4:-1])


def test_silence_costs_nothing_once_the_reel_is_there() -> None:
    stream = settled()
    before = stream.renders
    frames = stream.frames(300)
    assert stream.renders == before
    assert not heard(frames).any()
    assert all(frame.utterance is None and frame.mark is Mark.GOOD for frame in frames)


def test_a_long_reel_is_rendered_as_it_is_first_shown() -> None:
    chunks = 100 // CHUNK + 3
    stream, ahead = SimulatedStream(reel_chunks=chunks), []
    # The chunk of silence before the first one settles and is not shown.
    while stream.renders < chunks + 1:
        stream.frames(1)
        ahead.append((stream.renders - 1) * CHUNK - len(ahead))
    assert all(100 <= frames < 100 + CHUNK for frames in ahead)
    stream.frames(3 * chunks * CHUNK)
    assert stream.renders == chunks + 1


def test_a_chunk_of_a_shared_reel_is_rendered_once() -> None:
    reel = IdleReel(portrait(LIVELY), CHUNK, 3)
    one, other = (StreamCore(LIVELY, RATE, reel, Overload()) for _ in range(2))
    frames = np.zeros((CHUNK, *LIVELY.image_size, 3), np.uint8)
    for index in range(1, 5):
        job, twin = one.next_job(), other.next_job()
        assert job is not None
        assert twin is not None
        assert not other.unwanted(twin)
        one.rendered(job, frames, LoopState(index), 0.0)
        assert other.unwanted(twin)
        other.withdraw(twin)
    assert one.next_job() is None
    assert other.next_job() is None


def test_the_first_frame_is_there_before_anything_is_rendered() -> None:
    frame = SimulatedStream().core.next_frame()
    assert frame.picture.shape == (*LIVELY.image_size, 3)
    assert frame.sound.shape == (PER_FRAME,)


def test_the_end_of_an_utterance_shows_what_was_held_back_and_the_stream_goes_on() -> None:
    stream = settled()
    stream.say(speech(0.1), end=False)
    assert not spoken(stream.frames(20))
    stream.core.end_utterance()
    assert len(spoken(stream.frames(20))) == 3
    stream.say(speech(0.2, seed=1))
    assert len(spoken(stream.frames(20))) == 5


def test_utterances_follow_each_other_without_a_gap() -> None:
    stream = settled()
    first, second = speech(0.5), speech(0.5, seed=1)
    stream.say(first)
    stream.say(second)
    frames = spoken(stream.frames(60))
    np.testing.assert_array_equal(heard(frames)[: first.size + second.size], np.concatenate([first, second]))
    assert [type(event) for event in events(frames)] == [Started, Ended, Started, Ended]


def test_an_utterance_that_has_ended_does_not_wait_for_the_next_one() -> None:
    stream = settled()
    stream.say(speech(0.3))
    stream.say(speech(0.05, seed=1), end=False)
    frames = stream.frames(40)
    assert Ended(0, 300.0) in events(frames)
    assert not any(event == Started(1) for event in events(frames))


def test_events_tell_what_was_played() -> None:
    stream = settled()
    stream.say(speech(0.5))
    assert events(stream.frames(60)) == [Started(0), Ended(0, 500.0)]


def test_an_utterance_without_sound_begins_and_ends() -> None:
    stream = settled()
    stream.core.end_utterance()
    stream.core.end_utterance()
    assert events(stream.frames(5)) == [Started(0), Ended(0, 0.0), Started(1), Ended(1, 0.0)]


def test_an_interrupt_is_seen_and_heard_in_the_very_next_frame() -> None:
    stream = settled()
    idle = {frame.picture.tobytes() for frame in stream.frames(80)}
    stream.say(speech(3.0))
    before = stream.frames(20)
    assert before[-1].utterance == 0
    played = stream.core.interrupt()
    after = stream.frames(40)
    assert played == 40.0 * len(spoken(before))
    assert events(after) == [Interrupted(0, played)]
    assert not heard(after).any()
    assert {frame.picture.tobytes() for frame in after} <= idle


def test_an_interrupt_costs_no_rendering_and_drops_what_waits() -> None:
    stream = settled()
    stream.say(speech(1.0))
    stream.say(speech(1.0, seed=1))
    stream.frames(10)
    renders = stream.renders
    stream.core.interrupt()
    frames = stream.frames(50)
    assert stream.renders == renders
    assert [type(event) for event in events(frames)] == [Interrupted, Interrupted]
    assert events(frames)[1] == Interrupted(1, 0.0)


def test_an_interrupt_of_nothing_is_nothing() -> None:
    stream = settled()
    assert stream.core.interrupt() == 0.0
    stream.say(speech(0.2))
    stream.frames(60)
    assert stream.core.interrupt() == 0.0
    assert not events(stream.frames(3))


def test_speech_after_an_interrupt_bears_no_trace_of_what_was_cut_off() -> None:
    """Both streams begin to speak at the same place of the same reel, and hear the same."""

    def last_words(cut_off: bool) -> np.ndarray:
        stream = settled(reel_chunks=1)
        if cut_off:
            stream.say(speech(2.0, seed=7))
            stream.frames(15)
            stream.core.interrupt()
        stream.frames(60)
        stream.say(speech(0.64, seed=3))
        return seen(spoken(stream.frames(40))[2:])

    np.testing.assert_array_equal(last_words(False), last_words(True))


def test_words_that_come_slower_than_they_are_heard_wait_for_the_rest() -> None:
    stream, said = settled(), speech(2.0)
    given = []
    for start in range(0, said.size, PER_FRAME):
        stream.say(said[start : start + PER_FRAME], end=False)
        given += stream.frames(1)
    stream.core.end_utterance()
    given += stream.frames(60)
    frames = spoken(given)
    np.testing.assert_array_equal(heard(frames)[: said.size], said)
    assert all(frame.mark is Mark.GOOD for frame in frames)


def test_a_voice_that_stops_in_the_middle_of_an_utterance_leaves_no_frozen_face() -> None:
    stream = settled()
    stream.say(speech(1.2), end=False)
    frames = stream.frames(100)
    assert len([frame for frame in frames if frame.mark is Mark.HELD]) <= 8
    assert all(frame.mark is Mark.GOOD and frame.utterance is None for frame in frames[60:])
    stream.say(speech(0.5, seed=1))
    later = stream.frames(60)
    assert sum(frame.sound.size for frame in spoken(frames + later)) >= round(1.7 * RATE)


def test_sound_of_any_rate_is_heard_at_the_streams() -> None:
    stream = settled(rate=48_000)
    time = np.arange(24_000) / 24_000
    stream.say((0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), rate=24_000)
    frames = stream.frames(60)
    assert all(frame.sound.size == 48_000 // LIVELY.fps for frame in frames)
    sound = heard(spoken(frames))[:48_000]
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    assert np.abs(sound - expected)[500:-500].max() < 2e-3


def test_a_rate_that_no_frame_divides_loses_no_sample() -> None:
    stream = settled(rate=22_050)
    said = np.linspace(-0.5, 0.5, 11_025, dtype=np.float32)
    stream.say(said)
    frames = stream.frames(50)
    np.testing.assert_array_equal(heard(frames)[np.flatnonzero(heard(frames))], said[said != 0])


def test_a_chunk_that_fails_is_heard_with_the_last_picture() -> None:
    stream = settled()
    stream.say(speech(0.96))
    job = stream.core.next_job()
    assert job is not None
    assert stream.core.failed(job)
    frames = spoken(stream.frames(60))
    held = [frame for frame in frames if frame.mark is Mark.HELD]
    assert 0 < len(held) <= CHUNK
    assert len(heard(frames)) == round(0.96 * RATE)


def test_chunks_that_come_too_late_are_left_out_and_the_sound_goes_on() -> None:
    stream = settled()
    stream.say(speech(2.0))
    given = stream.frames(1)
    # From now on nobody renders.
    given += [stream.core.next_frame() for _ in range(70)]
    assert len(heard(spoken(given))) == round(2.0 * RATE)
    assert any(frame.mark is Mark.HELD for frame in given)
    # The second one was in time, the third is over.
    assert stream.core.next_job() is None


def live(stream: SimulatedStream, chunks: int, takes: tuple[int, ...]) -> list:
    """Speech that comes as it is spoken, whose chunks are there so many frame times after their sound."""
    frames, job, ready, took, done = [], None, 0, 0, 0
    for index in range(chunks * CHUNK + 3 * CHUNK):
        if index < chunks * CHUNK:
            stream.say(speech(0.04, seed=index), end=index == chunks * CHUNK - 1)
        if job is None and (job := stream.core.next_job()) is not None:
            took, done = takes[done % len(takes)], done + 1
            ready = index + took
        if job is not None and index >= ready:
            stream.loop.restore(job.state)
            stream.loop.waveform[...] = job.waveform
            rendered, _ = stream.loop.render(job.rung.steps, job.rung.frame_step)
            stream.core.rendered(job, rendered, stream.loop.state, took / LIVELY.fps)
            job = None
        frames.append(stream.core.next_frame())
    return frames


def test_where_chunks_take_unevenly_long_the_next_words_wait_for_as_much_and_no_picture_is_held() -> None:
    stream = settled()
    first, *others = (live(stream, 6, (4, 10)) for _ in range(4))
    assert sum(frame.mark is Mark.HELD for frame in first) == 9
    assert not any(frame.mark is Mark.HELD for frames in others for frame in frames)
    # On a machine that is in time again, nothing waits longer than it must.
    for _ in range(3):
        last = live(stream, 6, (4,))
    begins = [next(i for i, frame in enumerate(frames) if frame.utterance is not None) for frames in (first, last)]
    assert begins[0] == begins[1]


def test_a_machine_that_cannot_keep_up_leaves_chunks_out_and_shows_the_others() -> None:
    frames = live(settled(), 20, (CHUNK + 4,))[10 * CHUNK : 20 * CHUNK]
    assert sum(frame.mark is Mark.REDUCED for frame in frames) > 2 * CHUNK


def test_a_machine_that_is_too_slow_renders_less() -> None:
    stream = settled()
    stream.say(speech(6.0))
    rungs = []
    for _ in range(150):
        job = stream.core.next_job()
        if job is not None:
            rungs.append(job.rung)
            stream.loop.restore(job.state)
            stream.loop.waveform[...] = job.waveform
            frames, _ = stream.loop.render(job.rung.steps, job.rung.frame_step)
            stream.core.rendered(job, frames, stream.loop.state, 2 * LIVELY.chunk_seconds)
        stream.core.next_frame()
    assert rungs[-1] != rungs[0]


def test_the_engine_may_fail_only_so_often() -> None:
    stream = SimulatedStream()
    outcomes = []
    for _ in range(4):
        job = stream.core.next_job()
        assert job is not None
        outcomes.append(stream.core.failed(job))
    assert outcomes == [True, True, True, False]


def test_the_seam_between_idle_and_speech_is_no_larger_than_the_changes_beside_it() -> None:
    stream = settled()
    stream.frames(20)
    stream.say(0.05 * speech(1.0))
    frames = stream.frames(80)
    change = np.abs(np.diff(seen(frames).astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    first = next(i for i, frame in enumerate(frames) if frame.utterance is not None)
    inside = change[first + 3 : first + 20].max()
    assert change[first - 1] <= inside + 1.0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 9_000)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("interrupt"), st.just(0)),
        st.tuples(st.just("frames"), st.integers(1, 30)),
    ),
    max_size=8,
)


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_every_sample_is_heard_once_in_order_or_was_interrupted(steps) -> None:
    stream, told, pushed, lost = SimulatedStream(reel_chunks=1), [], [], 0
    position = 1
    for what, amount in steps:
        if what == "push":
            # Every sample says which one it is.
            pcm = (np.arange(position, position + amount) * 2.0**-20).astype(np.float32)
            position += amount
            stream.say(pcm, end=False)
            pushed.append(pcm)
        elif what == "end":
            stream.core.end_utterance()
        elif what == "interrupt":
            stream.core.interrupt()
            lost += 1
        else:
            told += stream.frames(amount)
    stream.core.end_utterance()
    told += stream.frames(round(position / PER_FRAME) + 60)
    sound = heard(told)
    sound = sound[sound != 0]
    everything = np.concatenate(pushed) if pushed else np.empty(0, np.float32)
    assert (np.diff(sound) > 0).all()
    assert np.isin(sound, everything).all()
    if not lost:
        np.testing.assert_array_equal(sound, everything)
    begun = [event.utterance for event in events(told) if isinstance(event, Started)]
    over = [event.utterance for event in events(told) if isinstance(event, Ended | Interrupted)]
    assert begun == sorted(set(begun))
    assert over == sorted(set(over))
    assert set(begun) <= set(over)


@settings(max_examples=8, deadline=None)
@given(STEPS, st.integers(1, 4000))
def test_the_same_calls_give_the_same_frames_however_sound_was_split(steps, piece) -> None:
    def run(split: int | None) -> list:
        stream, told = SimulatedStream(reel_chunks=1), []
        for what, amount in steps:
            if what == "push":
                pcm = speech(amount / RATE, seed=amount)
                for start in range(0, pcm.size, split or pcm.size):
                    stream.say(pcm[start : start + (split or pcm.size)], end=False)
            elif what == "end":
                stream.core.end_utterance()
            elif what == "interrupt":
                stream.core.interrupt()
            else:
                told += stream.frames(amount)
        return told

    one, other = run(None), run(piece)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.sound, b.sound)
        assert (a.utterance, a.events, a.mark) == (b.utterance, b.events, b.mark)


@pytest.mark.parametrize("chunks", [1, 3])
def test_idle_motion_goes_to_and_fro_without_a_jump(chunks: int) -> None:
    stream = settled(reel_chunks=chunks)
    frames = stream.frames(4 * chunks * CHUNK)
    change = np.abs(np.diff(seen(frames).astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert change.max() <= 2.0
