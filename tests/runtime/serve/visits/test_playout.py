import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.serving.kiosk_client import run
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.serve.admission import Admission, KioskFullError, places_for
from rap_edge.runtime.serve.transports.tracks import BLOCK, RATE, Outlet
from rap_edge.runtime.serve.visits.playout import Playout, Slot
from rap_edge.runtime.serve.visits.viewer import Piece, Viewer
from rap_edge.runtime.session.chunk import Mark

FPS, CHUNK = 25, 24
CUSHION = 3


def avatar(**bodies) -> Avatar:
    face = np.full((TINY.image_size, TINY.image_size, 3), 70, np.uint8)
    return Avatar(TINY, tiny_engines(TINY, **bodies), face, "fp32")


def piece(index: int, loudness: float = 0.5, frames: int = CHUNK) -> Piece:
    """A chunk whose pixels count its frames and whose sound says the same."""
    numbers = index * CHUNK + np.arange(frames)
    pixels = np.broadcast_to((numbers % 250).astype(np.uint8)[:, None, None, None], (frames, 4, 4, 3))
    marks = np.repeat(numbers, RATE // FPS).astype(np.float32)
    return Piece(
        pixels, (loudness * marks)[:, None], index * CHUNK / FPS, 100.0 + index * CHUNK / FPS, 0.1, False, Mark.GOOD
    )


def playout() -> Playout:
    return Playout(np.full((4, 4, 3), 251, np.uint8), FPS, RATE)


def shown(slot: Slot) -> int:
    return int(slot.frame[0, 0, 0])


def test_the_portrait_is_shown_in_silence_until_the_first_piece() -> None:
    slot = playout().next()
    assert (shown(slot), slot.heard, slot.sound.size) == (251, None, RATE // FPS)
    assert not slot.sound.any()


def test_pieces_in_time_are_played_without_a_gap() -> None:
    out = playout()
    slots = []
    for index in range(6):
        out.add(piece(index))
        slots += [out.next() for _ in range(CHUNK)]
    assert [shown(slot) for slot in slots[:CUSHION]] == [251] * CUSHION
    assert [shown(slot) for slot in slots[CUSHION:]] == list(range(6 * CHUNK - CUSHION))
    assert out.stalls == 0


def test_a_late_piece_holds_picture_and_sound_alike() -> None:
    out = playout()
    out.add(piece(0))
    slots = [out.next() for _ in range(CUSHION + CHUNK + 5)]
    out.add(piece(1))
    late = out.next()
    assert out.stalls == 5
    assert [shown(slot) for slot in slots[-6:]] == [23] * 6
    assert not np.concatenate([slot.sound for slot in slots[-5:]]).any()
    assert shown(late) == 24


def test_latency_after_a_hiccup_is_won_back_in_silence_only() -> None:
    def backlog_after(loudness: float) -> int:
        out = playout()
        for index in range(3):
            out.add(piece(index, loudness))
        for index in range(3, 15):
            for _ in range(CHUNK):
                out.next()
            out.add(piece(index, loudness))
        return out.waiting - CHUNK

    assert backlog_after(0.5) == 2 * CHUNK + CUSHION
    assert backlog_after(0.0) <= 2 * CUSHION


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5]), st.integers(0, 60)), max_size=30))
def test_sound_and_picture_never_part_and_never_pile_up_whatever_the_rhythm(rhythm) -> None:
    out, given_ = playout(), 0
    for pieces, loudness, slots in rhythm:
        for _ in range(pieces):
            out.add(piece(given_, loudness))
            given_ += 1
        for _ in range(slots):
            slot = out.next()
            assert slot.sound.size == RATE // FPS
            if slot.heard is not None and slot.sound.any():
                assert round(float(slot.sound[0]) / 0.5) % 250 == shown(slot)
        assert out.waiting <= 4 * FPS


def test_both_tracks_carry_the_same_clock() -> None:
    async def scenario() -> None:
        out = playout()
        out.add(piece(0))
        heard: list[float] = []
        outlet = Outlet(out, FPS, heard.append)
        sending = asyncio.ensure_future(outlet.run())
        loop = asyncio.get_running_loop()
        began = loop.time()
        pictures = [await outlet.picture.recv() for _ in range(6)]
        assert loop.time() - began > 0.15
        blocks = [await outlet.sound.recv() for _ in range(12)]
        sending.cancel()
        assert [picture.pts for picture in pictures] == list(range(6))
        assert [block.pts for block in blocks] == [BLOCK * i for i in range(12)]
        assert {block.samples for block in blocks} == {BLOCK}
        assert heard[0] == 100.0
        outlet.picture.stop()
        outlet.sound.stop()

    run(scenario)


def test_a_sender_that_does_not_fetch_loses_the_oldest_and_holds_nothing_up() -> None:
    async def scenario() -> None:
        outlet = Outlet(playout(), 1000, lambda _: None)
        sending = asyncio.ensure_future(outlet.run())
        await asyncio.sleep(0.3)
        sending.cancel()
        assert (await outlet.picture.recv()).pts > 20

    run(scenario)


def viewer(face: Avatar, pool: ThreadPoolExecutor) -> Viewer:
    return Viewer(face, pool, TINY.sample_rate, RATE)


def test_a_viewer_gives_the_sound_of_its_frames() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool, avatar() as face:
            view = viewer(face, pool)
            for _ in range(20):
                view.push(np.full(1600, 0.25, np.float32))
            view.finish()
            pieces = [part async for part in view.pieces()]
            assert sum(len(part.frames) for part in pieces) == 50
            for part in pieces:
                assert len(part.sound) == pytest.approx(len(part.frames) * RATE / FPS, abs=1)
            assert [part.pts for part in pieces] == pytest.approx([i * TINY.chunk_seconds for i in range(len(pieces))])

    run(scenario)


def test_overload_drops_the_newest_sound_in_one_piece_and_bounds_the_backlog() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool, avatar() as face:
            view = viewer(face, pool)
            taken = [view.push(np.zeros(320, np.float32)) for _ in range(500)]
            assert view.behind_seconds <= 3 * TINY.chunk_seconds + 0.04
            assert view.dropped_seconds == pytest.approx(10 - view.behind_seconds)
            assert taken == sorted(taken, reverse=True)
            view.close()

    run(scenario)


def test_rendering_leaves_the_event_loop_free_and_takes_turns() -> None:
    threads: set[str] = set()
    order: list[int] = []

    def slow(buffers) -> None:
        threads.add(threading.current_thread().name)
        time.sleep(0.05)

    async def drain(index: int, view: Viewer) -> None:
        async for _ in view.pieces():
            order.append(index)

    async def scenario() -> None:
        with ThreadPoolExecutor(1, "render") as pool, avatar(conditioner=slow) as face:
            views = [viewer(face, pool) for _ in range(2)]
            for view in views:
                view.push(np.zeros(3 * TINY.chunk_samples, np.float32))
                view.finish()
            beats = 0
            work = asyncio.gather(*(drain(i, view) for i, view in enumerate(views)))
            while not work.done():
                await asyncio.sleep(0.005)
                beats += 1
            assert beats > 20
            assert order == [0, 1, 0, 1, 0, 1]
            assert all(name.startswith("render") for name in threads)

    run(scenario)


def test_closing_ends_the_pieces() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool, avatar() as face:
            view = viewer(face, pool)
            view.push(np.zeros(TINY.chunk_samples, np.float32))
            async for _ in view.pieces():
                view.close()
            assert not view.push(np.zeros(1, np.float32))

    run(scenario)


@pytest.mark.parametrize(("rtf", "places"), [(0.01, 64), (0.1, 8), (0.3, 2), (0.41, 1), (0.9, 1), (3.0, 1)])
def test_places_leave_a_fifth_of_the_machine(rtf: float, places: int) -> None:
    assert places_for(rtf) == places


def test_a_place_is_given_back_once() -> None:
    admission = Admission(1)
    place = admission.take()
    with pytest.raises(KioskFullError, match="one visitor"):
        admission.take()
    place.release()
    place.release()
    assert admission.taken == 0
    admission.take()
