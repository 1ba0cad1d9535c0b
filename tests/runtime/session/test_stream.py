"""`AvatarStream` as an embedder uses it: threads, the clock, asyncio, closing."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, speech
from helpers.bundles.streams import LIVELY, events, heard
from helpers.places import TESTS

from rap_edge.runtime.errors import AudioError, NumericalError, SessionError
from rap_edge.runtime.session.stream_core import Ended, Interrupted, Started, StreamFrame


def until_ended(stream, utterance: int = 0) -> list[StreamFrame]:
    frames = []
    for frame in stream:
        frames.append(frame)
        if any(isinstance(event, Ended) and event.utterance == utterance for event in frame.events):
            return frames
    return frames


def test_frames_come_at_their_rate_and_carry_what_was_pushed() -> None:
    said = speech(0.8)
    with avatar(LIVELY).stream() as stream:
        began = time.monotonic()
        stream.push(said)
        stream.end_utterance()
        frames = until_ended(stream)
        took = time.monotonic() - began
    spoken = heard([frame for frame in frames if frame.utterance is not None])
    np.testing.assert_array_equal(spoken[: said.size], said)
    assert took >= (len(frames) - 1) / LIVELY.fps
    assert [frame.pts for frame in frames] == [index / LIVELY.fps for index in range(len(frames))]


def test_int16_of_another_rate_is_taken_and_nonsense_is_not() -> None:
    with avatar(LIVELY).stream(sample_rate=24_000) as stream:
        stream.push(np.zeros(480, np.int16), sample_rate=48_000)
        with pytest.raises(AudioError, match="sample rate of 3"):
            stream.push(np.zeros(480, np.float32), sample_rate=3)
        with pytest.raises(AudioError, match="NaN"):
            stream.push(np.full(480, np.nan, np.float32))
        assert next(iter(stream)).sound.size == 960


def test_whoever_speaks_learns_the_number_of_the_utterance() -> None:
    with avatar(LIVELY).stream() as stream:
        assert [stream.push(speech(0.1)), stream.push(speech(0.1)), stream.end_utterance()] == [0, 0, 0]
        assert [stream.push(speech(0.0)), stream.push(speech(5.0))] == [1, 1]
        stream.interrupt()
        assert [stream.end_utterance(), stream.push(speech(0.1))] == [2, 3]


def test_an_interrupt_tells_what_was_played() -> None:
    with avatar(LIVELY).stream() as stream:
        stream.push(speech(5.0))
        stream.end_utterance()
        frames = iter(stream)
        spoken = 0
        while spoken < 5:
            spoken += next(frames).utterance is not None
        assert stream.interrupt() == 200.0
        assert next(frames).events == (Interrupted(0, 200.0),)


def test_interrupts_in_a_storm_harm_nobody() -> None:
    with avatar(LIVELY).stream() as stream:
        for _ in range(1000):
            stream.push(speech(0.01))
            stream.interrupt()
        stream.push(speech(0.2))
        stream.end_utterance()
        told = events(until_ended(stream, 1000))
    assert told[-2:] == [Started(1000), Ended(1000, 200.0)]
    assert len([event for event in told if isinstance(event, Interrupted)]) == 1000


def test_closing_does_not_wait_for_what_is_being_rendered() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(buffers) -> None:
        entered.set()
        leave.wait(20)
        buffers["velocity"][...] = 0

    stream = avatar(LIVELY, dit=slow).stream()
    assert entered.wait(10)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 1.0
    assert list(stream) == []
    leave.set()
    with pytest.raises(SessionError, match="closed"):
        stream.push(speech(0.1))


def test_closing_ends_an_iteration_that_waits() -> None:
    stream = avatar(LIVELY).stream()
    frames = iter(stream)
    next(frames)
    threading.Timer(0.01, stream.close).start()
    assert len(list(frames)) <= 3


def test_a_stream_that_waits_for_its_turn_takes_none_when_it_is_interrupted() -> None:
    runs = 0

    def counted(buffers) -> None:
        nonlocal runs
        runs += 1
        buffers["velocity"][...] = 0

    shared = avatar(LIVELY, dit=counted)
    with shared.stream() as stream, shared.stream() as other:
        frames, before = iter(stream), -1
        while runs > before:
            before = runs
            for _ in range(5):
                next(frames)
        with shared._turns.turn(object()):
            stream.push(speech(1.0))
            stream.end_utterance()
            time.sleep(0.1)
            stream.interrupt()
        other.push(speech(0.1))
        other.end_utterance()
        until_ended(other)
        assert runs == before + LIVELY.steps


def test_asyncio_gets_the_same_frames_and_its_loop_is_not_held_up() -> None:
    async def main() -> tuple[list[StreamFrame], int]:
        ticks, frames = 0, []

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        with avatar(LIVELY).stream() as stream:
            stream.push(speech(0.4))
            stream.end_utterance()
            async for frame in stream:
                frames.append(frame)
                if any(isinstance(event, Ended) for event in frame.events):
                    break
        ticking.cancel()
        return frames, ticks

    frames, ticks = asyncio.run(main())
    assert len([frame for frame in frames if frame.utterance == 0]) == 10
    assert ticks > 10


def test_a_consumer_that_paused_goes_on_from_now() -> None:
    with avatar(LIVELY).stream() as stream:
        frames = iter(stream)
        next(frames)
        time.sleep(1.5)
        next(frames)
        began = time.monotonic()
        for _ in range(5):
            next(frames)
        assert time.monotonic() - began >= 4 / LIVELY.fps


def test_engines_that_fail_again_and_again_end_the_stream_with_their_error() -> None:
    def broken(buffers) -> None:
        buffers["velocity"][...] = np.nan

    stream = avatar(LIVELY, dit=broken).stream()
    with pytest.raises(NumericalError, match="dit"):
        for _ in stream:
            pass
    assert list(stream) == []


def test_pushes_ends_and_interrupts_from_many_threads_leave_a_stream_that_works() -> None:
    with avatar(LIVELY).stream() as stream:

        def chatter(seed: int) -> None:
            for index in range(20):
                stream.push(speech(0.03, seed=seed))
                if index % 3 == seed % 3:
                    stream.end_utterance()
                if index % 5 == seed % 5:
                    stream.interrupt()

        threads = [threading.Thread(target=chatter, args=(seed,)) for seed in range(4)]
        frames = iter(stream)
        for thread in threads:
            thread.start()
        given = [next(frames) for _ in range(10)]
        for thread in threads:
            thread.join()
        stream.interrupt()
        given += [next(frames)]
        told = events(given)
        over = {event.utterance for event in told if isinstance(event, Ended | Interrupted)}
        assert {event.utterance for event in told if isinstance(event, Started)} <= over
        stream.push(speech(0.2))
        stream.end_utterance()
        last = max(over)
        assert any(event == Ended(last + 1, 200.0) for event in events(until_ended(stream, last + 1)))


def test_streams_of_one_seed_share_their_reel() -> None:
    shared = avatar(LIVELY)
    with shared.stream() as one, shared.stream() as other, shared.stream(seed=1) as third:
        assert one._worker.core._reel is other._worker.core._reel
        assert one._worker.core._reel is not third._worker.core._reel


def test_the_reels_of_the_last_streams_are_kept_for_whoever_comes_next() -> None:
    face, reels = avatar(LIVELY), []
    for seed in range(4):
        with face.stream(seed=seed) as stream:
            reels.append(weakref.ref(stream._worker.core._reel))
        stream._worker._thread.join(10)
    del stream
    gc.collect()
    assert [reel() is not None for reel in reels] == [False, True, True, True]
    face.close()
    gc.collect()
    assert not any(reel() for reel in reels)


def test_a_program_may_end_while_its_stream_renders(tmp_path) -> None:
    code = (
        "import time\nfrom pathlib import Path\n"
        "from rap_edge.runtime import Avatar\n"
        "from helpers.bundles.tiny_bundle import write_tiny_bundle\n"
        f"stream = Avatar.open(write_tiny_bundle(Path({str(tmp_path / 'bundle')!r}))).stream()\n"
        "next(iter(stream))\n"
        "time.sleep(0.02)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stream_that_nobody_has_any_more_ends() -> None:
    stream = avatar(LIVELY).stream()
    worker = stream._worker
    del stream
    gc.collect()
    worker._thread.join(10)
    assert not worker._thread.is_alive()
