"""Sessions that share an avatar: turns, closing, leaks, and asyncio."""

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, drain, frames_of, speech
from helpers.bundles.tiny import TINY
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.errors import NumericalError, SessionError
from rap_edge.runtime.session.async_session import AsyncSession
from rap_edge.runtime.session.turns import Turns

CHUNK = TINY.chunk_samples


def slow(seconds: float):
    def decode(b) -> None:
        time.sleep(seconds)
        b["magnitude"][...] = 1.0

    return decode


def test_turns_are_taken_in_the_order_in_which_threads_came() -> None:
    turns, order, waiting = Turns(), [], []
    with turns.turn(object()):
        for i in range(8):
            thread = threading.Thread(target=lambda i=i: _record(turns, order, i))
            thread.start()
            waiting.append(thread)
            while len(turns._waiting) <= i:
                time.sleep(0.001)
    for thread in waiting:
        thread.join()
    assert order == list(range(8))
    assert turns._free == 1


def _record(turns: Turns, order: list[int], i: int) -> None:
    with turns.turn(object()):
        order.append(i)


def test_no_more_than_so_many_have_their_turn_at_once() -> None:
    turns, now, most = Turns(2), [0], [0]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(20):
            with turns.turn(object()):
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                time.sleep(0.0005)
                with lock:
                    now[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2


def test_a_greedy_viewer_does_not_starve_another() -> None:
    face, times = avatar(vae_decoder=slow(0.02)), []
    stop = threading.Event()

    def greedy() -> None:
        with face.session() as session:
            while not stop.is_set():
                session.push(np.zeros(10 * CHUNK, np.float32))
                for _ in session.chunks():
                    if stop.is_set():
                        return

    thread = threading.Thread(target=greedy)
    thread.start()
    with face.session() as session:
        for _ in range(10):
            session.push(speech(TINY.chunk_seconds))
            started = time.monotonic()
            assert len(list(session.chunks())) == 1
            times.append(time.monotonic() - started)
    stop.set()
    thread.join()
    assert np.median(times) < 0.5


def test_a_viewer_who_does_not_read_holds_nobody_up() -> None:
    face = avatar()
    with face.session() as idle, face.session() as other:
        idle.push(speech(20 * TINY.chunk_seconds))
        reader = idle.chunks()
        next(reader)
        other.push(speech(3 * TINY.chunk_seconds))
        assert len(drain(other)) == 3
        assert len(list(reader)) == 19


def test_close_waits_for_the_chunk_in_flight_and_frees_the_buffers() -> None:
    entered, leave, got = threading.Event(), threading.Event(), []

    def decode(b) -> None:
        entered.set()
        assert leave.wait(10)
        b["magnitude"][...] = 1.0

    session = avatar(vae_decoder=decode).session()
    session.push(speech(2 * TINY.chunk_seconds))

    def view() -> None:
        with pytest.raises(SessionError, match="closed"):
            got.extend(_into(got, session.chunks()))

    viewer, closer = threading.Thread(target=view), threading.Thread(target=session.close)
    loop = weakref.ref(session._renderer._loop)
    viewer.start()
    assert entered.wait(10)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive(), "closed while a chunk was being rendered"
    leave.set()
    closer.join(10)
    viewer.join(10)
    assert len(got) == 1
    session.close()
    gc.collect()
    assert loop() is None


def _into(got: list, chunks) -> list:
    for chunk in chunks:
        got.append(chunk)
    return []


def test_wait_returns_when_a_chunk_is_ready_the_audio_ends_or_the_session_is_closed() -> None:
    with avatar().session() as session:
        assert not session.wait(0.01)
        timer = threading.Timer(0.05, lambda: session.push(np.zeros(CHUNK, np.float32)))
        timer.start()
        assert session.wait(10)
        list(session.chunks())
        threading.Timer(0.05, session.finish).start()
        assert not session.wait(10)
    other = avatar().session()
    threading.Timer(0.05, other.close).start()
    assert not other.wait(10)


def test_a_thousand_sessions_leave_no_buffers_threads_or_files(tmp_path) -> None:
    alive: list[weakref.ref] = []
    with Avatar.open(write_tiny_bundle(tmp_path / "tiny"), threads=1) as face:
        before = threading.active_count()
        for i in range(1000):
            session = face.session(seed=i)
            alive += [weakref.ref(session._renderer._loop), weakref.ref(session._renderer._loop._decoder)]
            if i % 100 == 0:
                session.push(speech(TINY.chunk_seconds))
                assert len(list(session.chunks())) == 1
            session.close()
        assert sum(ref() is not None for ref in alive) == 0
        assert threading.active_count() == before


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_the_asyncio_form_gives_the_same_frames_and_ends_after_finish() -> None:
    face, pcm = avatar(), speech(3.3)

    async def watch() -> list:
        async with AsyncSession(face.session(seed=5)) as session:

            async def talk() -> None:
                for i in range(0, len(pcm), 3000):
                    session.push(pcm[i : i + 3000])
                    await asyncio.sleep(0.001)
                session.finish()

            talking = asyncio.create_task(talk())
            chunks = [chunk async for chunk in session.chunks()]
            await talking
            return chunks

    with face.session(seed=5) as session:
        session.push(pcm)
        assert np.array_equal(frames_of(run(watch())), frames_of(drain(session)))


def test_the_event_loop_runs_on_while_a_chunk_is_rendered() -> None:
    async def watch() -> int:
        ticks = 0
        async with AsyncSession(avatar(vae_decoder=slow(0.3)).session()) as session:
            session.push(speech(TINY.chunk_seconds))
            session.finish()

            async def count() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.005)

            counting = asyncio.create_task(count())
            assert len([chunk async for chunk in session.chunks()]) == 1
            counting.cancel()
        return ticks

    assert run(watch()) > 10


def test_a_cancelled_viewer_loses_no_chunk() -> None:
    async def watch() -> list:
        async with AsyncSession(avatar(vae_decoder=slow(0.05)).session()) as session:
            session.push(speech(4 * TINY.chunk_seconds))
            session.finish()
            chunks = []
            for _ in range(20):

                async def view() -> None:
                    async for chunk in session.chunks():
                        chunks.append(chunk)

                with_timeout = asyncio.wait_for(view(), 0.03)
                try:
                    await with_timeout
                    break
                except TimeoutError:
                    continue
            return chunks

    assert [chunk.pts for chunk in run(watch())] == pytest.approx([i * TINY.chunk_seconds for i in range(4)])


def test_closing_ends_an_iteration_that_waits_for_sound_and_its_thread() -> None:
    async def watch() -> None:
        session = AsyncSession(avatar().session())
        viewing = asyncio.create_task(_count(session))
        await asyncio.sleep(0.05)
        await session.close()
        await session.close()
        assert await viewing == 0
        with pytest.raises(SessionError):
            session.push(speech(0.1))

    run(watch())
    time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "rap-edge session"]


async def _count(session: AsyncSession) -> int:
    return len([chunk async for chunk in session.chunks()])


def test_an_error_reaches_the_one_who_iterates() -> None:
    def poison(b) -> None:
        b["velocity"][...] = np.nan

    async def watch() -> None:
        async with AsyncSession(avatar(dit=poison).session()) as session:
            session.push(speech(TINY.chunk_seconds))
            with pytest.raises(NumericalError):
                await _count(session)

    run(watch())


def test_the_cost_of_a_chunk_is_measured() -> None:
    assert 0.05 < avatar(vae_decoder=slow(0.06)).chunk_cost() < 5.0


def test_a_chunk_loop_is_not_kept_by_its_session_after_an_error() -> None:
    def poison(b) -> None:
        b["velocity"][...] = np.nan

    session = avatar(dit=poison).session()
    session.push(speech(TINY.chunk_seconds))
    with pytest.raises(NumericalError):
        next(session.chunks())
    assert session._renderer is None
