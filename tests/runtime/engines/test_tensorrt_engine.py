"""The TensorRT backend's own logic, over a fake driver; the last test needs a GPU."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.gpu.fake_gpu import FakeCudaDriver, FakeTensorRt, FakeTensorRtx
from helpers.places import ROOT, TESTS

from rap_edge.runtime.bundle.manifest import GraphInfo, TensorInfo
from rap_edge.runtime.engines.kernel_cache import RuntimeCacheFile
from rap_edge.runtime.engines.tensorrt_engine import TensorRtEngine
from rap_edge.runtime.errors import BundleError, EngineError
from rap_edge.runtime.machine.cuda import Cuda
from rap_edge.runtime.machine.cuda_driver import query_driver

GRAPH = GraphInfo(
    "g.onnx",
    (TensorInfo("x", "float32", (2, 3)), TensorInfo("frames", "uint8", ("frames", 4))),
    (TensorInfo("y", "float32", (2, 3)),),
)
TENSORS = [("x", True, "FLOAT", (2, 3)), ("frames", True, "UINT8", (-1, 4)), ("y", False, "FLOAT", (2, 3))]


def double(arrays) -> None:
    arrays["y"][...] = 2 * arrays["x"] + arrays["frames"].sum()


class Machine:
    """A fake GPU and an engine on it."""

    def __init__(self, folder: Path, tensors=TENSORS, cache: Path | None = None, kind=FakeTensorRtx, **module) -> None:
        self.driver = FakeCudaDriver()
        self.module = kind(self.driver, tensors, double, **module)
        self.engine = TensorRtEngine("g", GRAPH, b"plan", self.module, Cuda(self.driver), cache=cache)


def test_a_run_copies_in_computes_copies_out_and_waits(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 5})
    execution.buffers["x"][...] = np.arange(6, dtype=np.float32).reshape(2, 3)
    execution.buffers["frames"][...] = 1
    machine.driver.calls.clear()
    execution.run()
    assert np.array_equal(execution.buffers["y"], 2 * np.arange(6).reshape(2, 3) + 20)
    assert machine.driver.calls == ["cuCtxSetCurrent"] + ["cuMemcpyHtoDAsync"] * 2 + [
        "cuMemcpyDtoHAsync",
        "cuEventRecordWithFlags",
        "cuEventSynchronize",
    ]


def test_preparing_runs_once_so_that_the_first_chunk_is_not_late(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    assert execution._context.handle.enqueued == 1


def test_work_beside_the_main_stream_waits_for_nothing_outside(tmp_path) -> None:
    class Branching(FakeTensorRtx):
        auxiliary_streams = 2

    machine = Machine(tmp_path, kind=Branching)
    execution = machine.engine.prepare(sizes={"frames": 1})
    auxiliary = execution._context.handle.auxiliary
    assert len({*auxiliary, execution._stream.handle}) == 3
    assert machine.driver.arguments["cuStreamCreate"] == (machine.driver.CUstream_flags.CU_STREAM_NON_BLOCKING,)
    del execution
    machine.engine._engine.contexts.clear()
    gc.collect()
    assert machine.driver.calls.count("cuStreamDestroy") == 3


def test_a_thread_that_waits_for_the_gpu_sleeps() -> None:
    driver = FakeCudaDriver()
    stream = Cuda(driver).stream()
    (flags,) = driver.arguments["cuEventCreate"]
    assert flags & driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC
    driver.calls.clear()
    stream.synchronize()
    assert driver.calls == ["cuEventRecordWithFlags", "cuEventSynchronize"]


def test_buffers_that_are_given_are_used_as_they_are(tmp_path) -> None:
    machine = Machine(tmp_path)
    shared = np.ones((2, 3), np.float32)
    execution = machine.engine.prepare({"x": shared}, {"frames": 1})
    shared[...] = 4
    execution.run()
    assert (execution.buffers["y"] == 8).all()


def test_a_captured_graph_is_replayed(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    assert execution.capture() == ""
    enqueued = execution._context.handle.enqueued
    for value in (1.0, 5.0):
        execution.buffers["x"][...] = value
        execution.run()
        assert (execution.buffers["y"] == 2 * value).all()
    assert execution._context.handle.enqueued == enqueued
    assert machine.driver.calls.count("cuGraphLaunch") == 2


def test_what_another_execution_allocated_can_be_captured_and_loose_memory_cannot(tmp_path) -> None:
    machine = Machine(tmp_path)
    first = machine.engine.prepare(sizes={"frames": 1})
    second = machine.engine.prepare({"x": first.buffers["y"]}, {"frames": 1})
    assert second.capture() == ""
    loose = machine.engine.prepare({"x": np.zeros((2, 3), np.float32)}, {"frames": 1})
    assert "'x' is not page-locked" in loose.capture()
    loose.run()


def test_a_capture_that_fails_says_why_and_runs_without(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    machine.driver.fail_at = "cuStreamEndCapture"
    assert "CAPTURE_INVALIDATED" in execution.capture()
    machine.driver.fail_at = ""
    execution.buffers["x"][...] = 3
    execution.run()
    assert (execution.buffers["y"] == 6).all()
    execution._context.handle.capturable_after = 1000
    assert "cannot be captured" in execution.capture()


def test_kernels_that_are_ready_from_the_second_run_on_are_captured(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    execution._context.handle.capturable_after = 2
    assert execution.capture() == ""


def test_work_that_fails_while_it_is_captured_says_its_own_reason_and_leaves_nothing() -> None:
    driver = FakeCudaDriver()
    stream = Cuda(driver).stream()

    def refused() -> None:
        raise EngineError("The plan failed.")

    with pytest.raises(EngineError, match="The plan failed"):
        stream.capture(refused)
    assert driver.calls[-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]
    # A driver that ends the capture by itself has an error of its own, which is not the reason.
    driver.fail_at = "cuStreamEndCapture"
    with pytest.raises(EngineError, match="The plan failed"):
        stream.capture(refused)
    assert driver.calls[-1] == "cuStreamEndCapture"


def test_a_graph_is_not_replayed_over_other_bindings(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    execution.capture()
    execution._captured = ()
    execution.run()
    assert "cuGraphLaunch" not in machine.driver.calls


def test_an_engine_with_other_bindings_than_the_contract_is_refused(tmp_path) -> None:
    for changed in (
        [("x", True, "HALF", (2, 3)), *TENSORS[1:]],
        [("x", True, "FLOAT", (2, 4)), *TENSORS[1:]],
        TENSORS[:2],
        [*TENSORS, ("z", False, "FLOAT", (1,))],
    ):
        with pytest.raises(BundleError, match="Graph 'g' has"):
            Machine(tmp_path, changed)


def test_a_static_plan_takes_the_size_it_was_built_for_and_no_other(tmp_path) -> None:
    machine = Machine(tmp_path, [TENSORS[0], ("frames", True, "UINT8", (33, 4)), TENSORS[2]])
    machine.engine.prepare(sizes={"frames": 33})
    with pytest.raises(EngineError, match=r"does not take 'frames' as \[9, 4\]"):
        machine.engine.prepare(sizes={"frames": 9})


def test_a_plan_that_tensorrt_refuses_is_a_sentence_with_its_reason(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"rtx 1\.7\.1\.116 cannot load the plan of 'g' \(Platform mismatch\)"):
        Machine(tmp_path, refuse=True)


def test_every_engine_hears_what_tensorrt_says_to_the_first_logger_of_the_process(tmp_path) -> None:
    machine = Machine(tmp_path)
    machine.module.refuse = True
    with pytest.raises(EngineError, match="Platform mismatch"):
        TensorRtEngine("g", GRAPH, b"plan", machine.module, Cuda(machine.driver))
    first, second = (logger for _, logger in machine.module.runtimes)
    assert first is second


def test_an_empty_plan_is_a_sentence(tmp_path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(EngineError, match=r"plan of 'g' is empty; build it again"):
        TensorRtEngine("g", GRAPH, b"", machine.module, Cuda(machine.driver))


def test_host_code_in_plans_is_refused_unless_it_is_asked_for(tmp_path) -> None:
    machine = Machine(tmp_path)
    assert machine.module.runtimes[0][0].engine_host_code_allowed is False
    TensorRtEngine("g", GRAPH, b"plan", machine.module, Cuda(machine.driver), allow_host_code=True)
    assert machine.module.runtimes[1][0].engine_host_code_allowed is True


def test_tensorrt_proper_which_knows_no_capture_beforehand_is_captured_too(tmp_path) -> None:
    machine = Machine(tmp_path, kind=FakeTensorRt)
    execution = machine.engine.prepare(sizes={"frames": 1})
    assert execution.capture() == ""
    execution.run()
    assert "cuGraphLaunch" in machine.driver.calls


def test_a_failing_gpu_is_a_sentence(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    machine.driver.fail_at = "cuEventSynchronize"
    with pytest.raises(EngineError, match="The GPU failed in cuEventSynchronize"):
        execution.run()


def test_a_gpu_can_be_used_as_soon_as_it_is_open() -> None:
    Cuda(FakeCudaDriver()).stream()


def test_a_thread_that_collects_garbage_keeps_the_context_it_had() -> None:
    driver = FakeCudaDriver()
    memory = [Cuda(driver).device_memory(1)]

    def collect() -> None:
        memory.clear()
        gc.collect()
        counts.append(driver.contexts.count)

    counts: list[int] = []
    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    assert (driver.blocks, counts) == ({}, [0])


def test_when_the_program_ends_the_driver_takes_everything_back_by_itself() -> None:
    # Libraries that still hold the stream are ended after us.
    code = """
import atexit
from helpers.gpu.fake_gpu import FakeCudaDriver
from rap_edge.runtime.machine.cuda import Cuda
driver = FakeCudaDriver()
atexit.register(lambda: print([call for call in driver.calls if "Destroy" in call or "Free" in call]))
cuda = Cuda(driver)
kept = cuda.stream(), cuda.device_memory(1), cuda.pinned((1,), "uint8")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_memory_is_given_back(tmp_path) -> None:
    machine = Machine(tmp_path)
    execution = machine.engine.prepare(sizes={"frames": 1})
    kept = execution.buffers["y"]
    # Page-locked and on the GPU for each of three tensors, and the activations.
    assert len(machine.driver.blocks) == 7
    del execution
    gc.collect()
    assert len(machine.driver.blocks) == 1
    assert (kept == 0).all()


def test_kernels_are_kept_beside_the_bundle(tmp_path) -> None:
    path = tmp_path / "bundle.cache" / "g.rtx"
    machine = Machine(tmp_path, cache=path)
    machine.engine.prepare(sizes={"frames": 1})
    assert path.read_bytes() == b"kernels"
    again = Machine(tmp_path, cache=path)
    assert again.module.cache.loaded == b"kernels"


def test_a_cache_that_others_may_write_is_left_alone(tmp_path) -> None:
    path = tmp_path / "g.rtx"
    path.write_bytes(b"kernels")
    cache = FakeTensorRt(FakeCudaDriver(), [], double).cache
    path.chmod(0o666)
    assert not RuntimeCacheFile(path).load(cache)
    path.chmod(0o644)
    assert RuntimeCacheFile(path).load(cache)
    cache.accepts = False
    assert not RuntimeCacheFile(path).load(cache)
    assert not RuntimeCacheFile(tmp_path / "none").load(cache)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = FakeTensorRt(FakeCudaDriver(), [], double).cache
    assert not RuntimeCacheFile(tmp_path / "file" / "g.rtx").save(cache)


def test_a_cache_without_anything_to_keep_is_not_written(tmp_path) -> None:
    cache = FakeTensorRt(FakeCudaDriver(), [], double).cache
    cache.content = None
    assert not RuntimeCacheFile(tmp_path / "g.rtx").save(cache)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not query_driver().devices, reason="needs an NVIDIA GPU")
def test_a_bundle_runs_on_the_gpu_as_on_the_cpu(tmp_path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the TensorRT-RTX wheel")
    pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")
    from helpers.bundles.half_bundle import write_half_bundle

    from rap_edge.export.cli import main
    from rap_edge.export.parity.compare import compare
    from rap_edge.models import load_networks
    from rap_edge.models.nano import SHIPPED
    from rap_edge.runtime.avatar import Avatar

    folder = write_half_bundle(load_networks(SHIPPED), tmp_path / "nano-fp16")
    picture = ROOT / "examples" / "assets" / "portrait.png"
    assert main(["--bundle", str(folder), "--engine", "tensorrt-rtx", "--target", "current"]) == 0
    speech = np.random.default_rng(0).uniform(-0.3, 0.3, 40_000).astype(np.float32)
    frames, notes = {}, ()
    for engine in (None, "tensorrt-rtx"):
        with Avatar.open(folder, picture, engine=engine) as avatar, avatar.session() as session:
            session.push(speech)
            session.finish()
            frames[engine] = np.concatenate([chunk.frames for chunk in session.chunks()])
            notes = session.notes
    # The last one is the plans', whose chunks are one graph.
    assert notes == ()
    assert compare(frames[None], frames["tensorrt-rtx"]).psnr > 30
    assert os.path.isdir(f"{folder}.cache")
