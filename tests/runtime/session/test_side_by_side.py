"""Several viewers' chunks side by side: the same frames bit for bit, and only where that is faster."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, drain, frames_of, portrait, speech
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.bundles.tiny_bundle import write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, load_engines
from rap_edge.runtime.engines.paired_engine import PairedEngine
from rap_edge.runtime.errors import MemoryPlanError, NumericalError
from rap_edge.runtime.loading import LoadedEngines
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.loop.on_host import HostLoops
from rap_edge.runtime.session import side_by_side
from rap_edge.runtime.session.chunk_cost import ChunkCost
from rap_edge.runtime.session.side_by_side import Sharing, share_machine
from rap_edge.runtime.session.turns import Turns

SAME = np.zeros((2, 1, 1, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def paired(bundle: Path, at_once: int, **settings: float) -> Avatar:
    """An avatar whose sessions render side by side with one thread each, or alone with two."""
    opened, turns = Bundle.open(bundle), Turns(at_once, **settings)
    whole, part = (load_engines(opened, threads, CPU_ONLY) for threads in (2, 1))
    engines = {name: PairedEngine(whole[name], part[name], lambda: turns.alone) for name in whole}
    spec = opened.manifest.spec
    new_loop = HostLoops(engines)
    return Avatar(spec, engines, portrait(spec), "fp32", new_loop=new_loop, turns=turns)


def at_the_same_time(*work) -> None:
    threads = [threading.Thread(target=item) for item in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def pair(bundle: Path) -> Avatar:
    return paired(bundle, 2, alone_after=0.002)


@pytest.fixture(scope="module")
def plain(bundle: Path) -> Avatar:
    opened = Bundle.open(bundle)
    return Avatar(TINY, load_engines(opened, 1, CPU_ONLY), portrait(), "fp32")


VIEWER = st.tuples(
    st.integers(0, 2**32), st.integers(1, 4), st.lists(st.integers(1, 9000), min_size=1, max_size=4), st.integers(0, 5)
)


@given(viewers=st.lists(VIEWER, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_frames_are_those_of_a_viewer_alone_whoever_else_is_there(pair: Avatar, plain: Avatar, viewers: list) -> None:
    """Whatever the sounds, however they are split, whenever somebody leaves."""
    seen: dict[int, np.ndarray] = {}

    def watch(index: int) -> None:
        seed, chunks, splits, leaves_after = viewers[index]
        pcm, found, at = speech(chunks * TINY.chunk_seconds, seed), [], 0
        with pair.session(seed=seed) as session:
            while at < pcm.size and len(found) < leaves_after:
                size = splits[at % len(splits)]
                session.push(pcm[at : at + size])
                at += size
                found += list(session.chunks())
        seen[index] = frames_of(found) if found else np.empty((0,))

    at_the_same_time(*(partial(watch, index) for index in range(len(viewers))))
    for index, (seed, chunks, _, _) in enumerate(viewers):
        with plain.session(seed=seed) as session:
            session.push(speech(chunks * TINY.chunk_seconds, seed))
            alone = frames_of(drain(session))
        assert np.array_equal(seen[index], alone[: len(seen[index])] if seen[index].size else np.empty((0,)))


def test_the_shipped_model_gives_the_same_bits_with_one_thread_and_with_all(nano_bundle: Path) -> None:
    beside = paired(nano_bundle, 2)
    alone = Avatar(beside.spec, load_engines(Bundle.open(nano_bundle), None, CPU_ONLY), beside.portrait, "fp32")
    pcm, seen = speech(2 * beside.spec.chunk_seconds), {}

    def watch(face: Avatar, seed: int, name: str) -> None:
        with face.session(seed=seed) as session:
            session.push(pcm)
            seen[name, seed] = frames_of(list(session.chunks()))

    at_the_same_time(*(partial(watch, beside, seed, "beside") for seed in range(2)))
    for seed in range(2):
        watch(alone, seed, "alone")
        assert np.array_equal(seen["beside", seed], seen["alone", seed])


def test_a_viewer_whose_numbers_are_lost_harms_nobody_beside() -> None:
    both_inside = threading.Barrier(2, timeout=10)

    def encode(b) -> None:
        both_inside.wait()
        b["audio_features"][...] = np.nan if np.abs(b["waveform"]).max() > 0.9 else 0.0

    turns, outcome = Turns(2), {}
    face = Avatar(TINY, tiny_engines(TINY, audio_encoder=encode), portrait(), "fp32", turns=turns)

    def view(loudness: float) -> None:
        with face.session() as session:
            session.push(np.full(TINY.chunk_samples, loudness, np.float32))
            try:
                outcome[loudness] = list(session.chunks())
            except NumericalError as error:
                outcome[loudness] = error

    at_the_same_time(partial(view, 0.1), partial(view, 1.0))
    assert isinstance(outcome[1.0], NumericalError)
    assert len(outcome[0.1]) == 1
    assert turns._free == 2


def test_the_only_viewer_has_every_core_and_two_share_them() -> None:
    now, used = [0.0], []
    turns = Turns(2, alone_after=1.0, clock=lambda: now[0])
    with turns.turn("first"):
        used.append(turns.alone)
        waiting = threading.Thread(target=lambda: _take(turns, "second", used))
        waiting.start()
        while not turns._waiting:
            pass
    waiting.join(10)
    with turns.turn("first"):
        used.append(turns.alone)
    now[0] = 5.0
    with turns.turn("first"):
        used.append(turns.alone)
    assert used == [True, False, False, True]
    _take(turns, "second", used)
    turns.leave("first")
    _take(turns, "second", used)
    assert used[4:] == [False, True]


def _take(turns: Turns, who: str, used: list) -> None:
    with turns.turn(who):
        used.append(turns.alone)


@pytest.mark.parametrize(
    ("costs", "frames", "way"),
    [
        ((0.10, 0.14), SAME, "side by side: 2 at a time, with 1 of the threads each, go 1.43 times"),
        ((0.10, 0.195), SAME, "in turn: 2 at a time, with 1 of the threads each, go 1.03 times"),
        ((0.10, 0.14), SAME + 1, "but give other frames"),
        ((0.70 * TINY.chunk_seconds, 0.9 * TINY.chunk_seconds), SAME, "in turn: 2 at a time"),
    ],
    ids=["faster", "not faster", "other bits", "too slow for the deadline"],
)
def test_it_is_done_only_where_it_was_faster_kept_the_deadline_and_every_bit(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, costs: tuple[float, float], frames: np.ndarray, way: str
) -> None:
    shared = shared_after(monkeypatch, bundle, iter((ChunkCost(costs[0], (SAME,)), ChunkCost(costs[1], (frames,)))))
    assert way in shared.notes[-1]
    beside = "side by side" in way
    assert shared.turns.at_once == (2 if beside else 1)
    assert shared.seconds == (costs[1] / 2 if beside else costs[0])
    assert isinstance(shared.engines["dit"], PairedEngine) == beside


def test_without_memory_for_the_weights_once_more_viewers_take_turns(
    monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    def full(*_: object) -> None:
        raise MemoryPlanError("There is no room.")

    monkeypatch.setattr(side_by_side, "load_onnxruntime", full)
    shared = shared_after(monkeypatch, bundle, iter((ChunkCost(0.1, (SAME,)),)))
    assert shared.notes == ("Several viewers' chunks are rendered in turn: There is no room.",)
    assert shared.turns.at_once == 1


def shared_after(monkeypatch: pytest.MonkeyPatch, bundle: Path, costs) -> Sharing:
    """What is chosen on a machine of two cores where measurements give `costs`."""
    monkeypatch.setattr(side_by_side, "available_cores", lambda: 2)
    monkeypatch.setattr(side_by_side, "measure_chunks", lambda sessions: next(costs))
    opened = Bundle.open(bundle)
    engines = load_engines(opened, 2, CPU_ONLY)
    shared = share_machine(opened, TINY, LoadedEngines(engines, partial(ChunkLoop, engines)), viewers=4)
    assert next(costs, None) is None
    return shared


@pytest.mark.parametrize(
    ("cores", "viewers", "load", "threads"),
    [(2, 64, 0.4, [1]), (8, 64, 0.1, [1, 2, 4]), (8, 2, 0.1, [4]), (8, 64, 0.7, [4]), (2, 2, 0.9, []), (1, 9, 0.1, [])],
)
def test_no_more_threads_are_tried_than_could_help(cores: int, viewers: int, load: float, threads: list[int]) -> None:
    assert list(side_by_side._shares(cores, viewers, load)) == threads


def test_an_avatar_that_is_opened_for_several_says_what_it_found(bundle: Path) -> None:
    with Avatar.open(bundle, viewers=2) as face, face.session() as session:
        session.push(speech(TINY.chunk_seconds))
        assert len(list(session.chunks())) == 1
        assert all("Several viewers' chunks are rendered" in note for note in face.notes)
    assert avatar().notes == ()
