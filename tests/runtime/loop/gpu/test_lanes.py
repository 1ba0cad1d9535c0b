"""Sessions on lanes of one GPU, rendered at the same time, over the stand-in for its driver."""

import gc
import shutil
import threading
from functools import partial

import numpy as np
import pytest
from helpers.bundles.sessions import mixing_field
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines
from helpers.gpu.emulated_kernels import kernels
from helpers.gpu.planned_gpu import PlannedGpu

from rap_edge.runtime.errors import EngineError
from rap_edge.runtime.loading import LoadedEngines
from rap_edge.runtime.loop.gpu.lanes import Lanes
from rap_edge.runtime.loop.gpu.loop import DeviceChunkLoop
from rap_edge.runtime.session import side_by_side
from rap_edge.runtime.session.chunk_cost import ChunkCost
from rap_edge.runtime.session.side_by_side import share_machine
from rap_edge.runtime.spec import ModelSpec

__all__ = ["kernels"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels are compiled by g++, which is missing")
CHUNKS = 3


class Gpu(PlannedGpu):
    """A GPU with a tiny model's plans, whose frames let the past and the seed show."""

    def __init__(self, kernels, inside: threading.Barrier | None = None, spec: ModelSpec = TINY) -> None:
        self.watched = False
        field = causal_engines(spec)["dit"]._body if spec.caches else mixing_field

        def watched_field(b) -> None:
            if self.watched and inside is not None:
                inside.wait()
            field(b)

        cpu = (causal_engines if spec.caches else tiny_engines)(spec, dit=watched_field)
        super().__init__(kernels, spec, cpu, np.full((*spec.image_size, 3), 70, np.uint8))


def frames(loop: DeviceChunkLoop, seed: int) -> list[np.ndarray]:
    sound, found = np.random.default_rng(seed), []
    for _ in range(CHUNKS):
        loop.waveform[...] = sound.uniform(-1, 1, loop.waveform.size)
        found.append(loop.render(TINY.steps)[0].copy())
    return found


@pytest.mark.parametrize("spec", [TINY, TINY_CAUSAL], ids=lambda spec: spec.name)
def test_chunks_on_two_lanes_at_the_same_time_have_the_frames_of_one_after_the_other(kernels, spec) -> None:
    gpu = Gpu(kernels, threading.Barrier(2, timeout=10), spec)
    in_turn = {seed: frames(gpu.loop(seed), seed) for seed in (1, 2)}
    lanes = Lanes(gpu.device, gpu.engines, 2)
    loops = {seed: lanes.new_loop(spec, gpu.reference, seed) for seed in (1, 2)}
    seen: dict[int, list[np.ndarray]] = {}
    gpu.watched = True  # from here on a denoise step ends only while one of the other lane runs as well
    threads = [threading.Thread(target=lambda s=seed: seen.update({s: frames(loops[s], s)})) for seed in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(np.array_equal(seen[seed], in_turn[seed]) for seed in (1, 2))


def test_a_session_gets_the_lane_with_the_fewest(kernels) -> None:
    gpu = Gpu(kernels)
    lanes = Lanes(gpu.device, gpu.engines, 2)
    first, second, third = (lanes.new_loop(TINY, gpu.reference, seed) for seed in range(3))
    assert first._device is third._device is gpu.device
    assert second._device is not gpu.device
    assert second._device.arena.address != gpu.device.arena.address
    assert second._stream is not first._stream
    del first, third
    gc.collect()
    assert lanes.new_loop(TINY, gpu.reference, 4)._device is gpu.device


@pytest.mark.parametrize(
    ("together", "frames", "at_once"), [((0.03,), 0, 4), ((0.2, 0.03), 0, 2), ((0.2, 0.2), 0, 1), ((0.03,), 1, 1)]
)
def test_as_many_lanes_are_kept_as_were_measured_to_be_faster(
    kernels, monkeypatch, together: tuple[float, ...], frames: int, at_once: int
) -> None:
    gpu, picture = Gpu(kernels), np.zeros((1, 1, 1, 3), np.uint8)
    costs = iter([ChunkCost(0.02, (picture,)), *(ChunkCost(seconds, (picture + frames,)) for seconds in together)])
    monkeypatch.setattr(side_by_side, "measure_chunks", lambda sessions: next(costs))
    new_loop = partial(DeviceChunkLoop, gpu.device, gpu.engines)
    loaded = LoadedEngines(gpu.cpu, new_loop, lanes=lambda count: Lanes(gpu.device, gpu.engines, count).new_loop)
    shared = share_machine(None, TINY, loaded, viewers=64)
    assert shared.turns.at_once == at_once
    assert next(costs, None) is None


def test_where_another_lane_does_not_fit_sessions_take_turns(kernels, monkeypatch) -> None:
    gpu = Gpu(kernels)

    def full(count: int) -> None:
        raise EngineError("The GPU is full.")

    loaded = LoadedEngines(gpu.cpu, partial(DeviceChunkLoop, gpu.device, gpu.engines), lanes=full)
    shared = share_machine(None, TINY, loaded, viewers=2)
    assert shared.notes == ("Several viewers' chunks are rendered in turn: The GPU is full.",)
    assert shared.turns.at_once == 1
