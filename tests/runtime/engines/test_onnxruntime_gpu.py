"""What ONNX Runtime is told where there is a GPU, and the ways back from there, on a machine without one."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import onnxruntime as ort
import pytest
from helpers.bundles.planned import FITTING, folder
from helpers.gpu.fake_gpu import FakeCudaDriver

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines import onnxruntime_engine
from rap_edge.runtime.engines.onnxruntime_engine import (
    CPU_ONLY,
    OnnxRuntimeDeviceExecution,
    OnnxRuntimeEngine,
    on_gpu,
    products_beside_gpu,
)
from rap_edge.runtime.errors import EngineError
from rap_edge.runtime.loading import LoadedEngines, load_engines
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.machine.cuda import Cuda

__all__ = ["folder"]


@pytest.fixture
def gpu(monkeypatch) -> FakeCudaDriver:
    """A GPU that CUDA sees, and an ONNX Runtime that was built with CUDA and runs on the CPU after all."""
    driver = FakeCudaDriver()
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.has_cuda", lambda: True)
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.Cuda", lambda: Cuda(driver))
    return driver


def loaded(bundle: Path, **changes: object) -> LoadedEngines:
    opened = Bundle.open(bundle)
    manifest = dataclasses.replace(opened.manifest, **changes)
    return load_engines(dataclasses.replace(opened, manifest=manifest), threads=1, machine=FITTING)


def test_the_gpu_computes_in_full_precision_on_the_stream_it_is_given(monkeypatch, capsys) -> None:
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.has_cuda", lambda: True)
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.query_driver", lambda: FITTING.driver)
    monkeypatch.setattr(ort, "preload_dlls", lambda directory=None: print("Failed to load something"))
    (provider, options), *others = on_gpu(140)
    assert (provider, tuple(others)) == ("CUDAExecutionProvider", CPU_ONLY)
    assert options["use_tf32"] == "0"
    assert options["user_compute_stream"] == "140"
    assert "user_compute_stream" not in on_gpu()[0][1]
    # Reports go to stdout.
    assert capsys.readouterr().out == ""


def test_cudas_libraries_are_found_in_packages_that_lie_elsewhere(tmp_path, monkeypatch, capsys) -> None:
    for part in ("cu13", "cudnn"):
        (tmp_path / "nvidia" / part / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cu13" / "bin").mkdir()
    asked = []

    def preload(directory=None) -> None:
        asked.append(directory)
        print("Failed to load what is in another folder")

    monkeypatch.setattr(ort, "preload_dlls", preload)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    onnxruntime_engine._load_cuda_libraries.__wrapped__()
    folders = [str(tmp_path / "nvidia" / part / "lib") for part in ("cu13", "cudnn")]
    assert asked == [*folders, None]
    # What is missing in the end is told once.
    told = capsys.readouterr()
    assert (told.out, told.err.count("Failed")) == ("", 1)


def test_without_a_gpu_an_onnx_runtime_for_cuda_is_asked_for_the_cpu_alone(monkeypatch) -> None:
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.has_cuda", lambda: True)
    assert on_gpu() == CPU_ONLY


def test_products_that_the_gpu_has_no_kernel_for_are_counted_by_operator() -> None:
    def part(name: str, *operators: str) -> SimpleNamespace:
        return SimpleNamespace(ep_name=name, get_nodes=lambda: [SimpleNamespace(op_type=item) for item in operators])

    parts = [
        part("CUDAExecutionProvider", "MatMul", "Attention"),
        part("CPUExecutionProvider", "Shape", "Attention"),
        part("CPUExecutionProvider", "Attention", "Gather", "Conv"),
    ]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    assert products_beside_gpu(session) == {"Attention": 2, "Conv": 1}


def test_the_real_onnx_runtime_tells_where_every_node_is(folder) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(folder / "dit.onnx"), options, providers=list(CPU_ONLY), enable_fallback=0)
    parts = session.get_provider_graph_assignment_info()
    assert {part.ep_name for part in parts} == {CPU_ONLY[0]}
    found = [node.op_type for part in parts for node in part.get_nodes()]
    assert products_beside_gpu(session).total() == sum(
        name in ("Attention", "Conv", "Gemm", "MatMul") for name in found
    )
    assert found


def test_products_beside_the_gpu_are_noted_with_the_cure(folder, gpu, monkeypatch) -> None:
    load = onnxruntime_engine.load_engines

    def beside(bundle, threads, providers=None):
        made = load(bundle, threads, CPU_ONLY)
        for engine in made.values():
            engine.is_on_gpu = True
        made["dit"].beside_gpu = {"Attention": 30}
        return made

    monkeypatch.setattr(onnxruntime_engine, "load_engines", beside)
    monkeypatch.setattr(Device, "open", lambda *arguments: None)
    (note,) = loaded(folder).notes
    assert "computes 30 Attention of 'dit' on the processor; upgrade onnxruntime-gpu." in note


def test_a_gpu_that_does_not_start_is_noted(folder, gpu) -> None:
    gpu.fail_at = "cuInit"
    (note,) = loaded(folder).notes
    assert note.startswith("The GPU is not used: The GPU failed in cuInit")


def test_without_its_libraries_the_bundle_runs_on_the_cpu_and_says_what_to_install(folder, gpu) -> None:
    result = loaded(folder)
    (note,) = result.notes
    assert note.startswith("The GPU is not used: ONNX Runtime cannot load its CUDA libraries")
    assert "rap-edge[gpu]" in note
    assert not result.engines["dit"].is_on_gpu


def test_a_convolution_without_its_library_is_found_out_before_the_first_portrait(folder, gpu, monkeypatch) -> None:
    load, asked = onnxruntime_engine.load_engines, []

    def first_without(bundle, threads, providers=None):
        asked.append(providers)
        made = load(bundle, threads, CPU_ONLY)
        if len(asked) > 1:
            return made
        for engine in made.values():
            engine.is_on_gpu = True

        def broken(**sizes):
            raise EngineError("Graph 'vae_encoder' failed in ONNX Runtime (no cuDNN); export it again.")

        made["vae_encoder"].prepare = broken
        return made

    monkeypatch.setattr(onnxruntime_engine, "load_engines", first_without)
    result = loaded(folder)
    (note,) = result.notes
    assert "failed in ONNX Runtime (no cuDNN); run pip install 'rap-edge[gpu]'" in note
    assert asked[1] == CPU_ONLY
    assert not result.engines["dit"].is_on_gpu


def test_int8_for_cpus_stays_on_the_cpu(folder, gpu) -> None:
    calibration = {"target": {"activation_dtype": "uint8", "weight_limit": 64.0}}
    (note,) = loaded(folder, precision=Precision.INT8, calibration=calibration).notes
    assert "int8 was calibrated for CPUs; use an fp16 bundle on the GPU" in note
    assert gpu.calls == []


def test_an_8_bit_bundle_for_other_processors_is_told_wherever_it_ends_up(folder, gpu) -> None:
    *_, note = loaded(folder, precision=Precision.INT8, calibration={"target": {"activation_dtype": "int8"}}).notes
    assert "int8 was calibrated for GPUs" in note


def device_execution(run) -> OnnxRuntimeDeviceExecution:
    session = SimpleNamespace(io_binding=lambda: SimpleNamespace(bind_input=None, bind_output=None))
    engine = SimpleNamespace(session=session, graph=GraphInfo("g.onnx", (), ()), is_on_gpu=True, run=run)
    return OnnxRuntimeDeviceExecution(engine, {}, {})


def test_the_cpu_runs_ahead_of_the_gpu_but_staging_memory_is_given_back_from_time_to_time() -> None:
    waits = []
    execution = device_execution(lambda binding, options: waits.append(options is None))
    for _ in range(1000):
        execution.enqueue()
    assert 2 <= sum(waits) <= 10
    assert not any(waits[:100])


def test_two_threads_do_not_run_one_session_on_the_gpu_at_once() -> None:
    busy, together = [], []

    class Session:
        def run_with_iobinding(self, binding, options) -> None:
            busy.append(binding)
            time.sleep(0.02)
            together.append(len(busy))
            busy.pop()

    engine = OnnxRuntimeEngine.__new__(OnnxRuntimeEngine)
    engine.session, engine._turn = Session(), threading.Lock()
    threads = [threading.Thread(target=engine.run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [1] * 4
