"""The chunk loop on a device, with the kernels' own source on the CPU, against the loop on the CPU."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bundles.sessions import mixing_field
from helpers.bundles.tiny import TINY, TINY_CLEAN, TINY_GUIDED, TINY_PRO, tiny_engines
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines
from helpers.gpu.emulated_kernels import kernels
from helpers.gpu.fake_gpu import FakeCudaDriver
from helpers.gpu.host_engine import HostEngine
from helpers.gpu.planned_gpu import PlannedGpu
from helpers.places import ROOT

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import GraphInfo, Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.onnxruntime_engine import load_engines
from rap_edge.runtime.errors import EngineError, NumericalError, SpecError
from rap_edge.runtime.loop.carry import Cached, LoopState, Past
from rap_edge.runtime.loop.carry import Path as LatentPath
from rap_edge.runtime.loop.device_frames import CPU
from rap_edge.runtime.loop.fallback_loop import FallbackLoop
from rap_edge.runtime.loop.gpu.kernels import KERNELS, Kernels, compile_kernels
from rap_edge.runtime.loop.gpu.loop import DeviceChunkLoop
from rap_edge.runtime.loop.gpu.memory_budget import session_memory
from rap_edge.runtime.loop.gpu.program import ChunkProgram
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.on_host import host_loop
from rap_edge.runtime.machine.cuda import Cuda
from rap_edge.runtime.machine.cuda_driver import query_driver
from rap_edge.runtime.spec import ModelSpec

__all__ = ["kernels"]

SPECS = [
    TINY,
    TINY_CLEAN,
    TINY_PRO,
    TINY_GUIDED,
    dataclasses.replace(TINY, name="tiny-noisy-renoise", solver="renoise", color_match=0.5, image_size=(96, 64)),
    TINY.with_new_latents(1),
    TINY_CAUSAL,
    TINY_CAUSAL.with_new_latents(1),
    dataclasses.replace(
        TINY_CAUSAL,
        name="tiny-causal-renoise",
        solver="renoise",
        color_match=0.5,
        caches=dataclasses.replace(TINY_CAUSAL.caches, look_ahead=0),
    ),
]
# One for every way in which a chunk hands over to the next one.
CARRIES = [TINY, TINY_CLEAN, TINY_CAUSAL]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels are compiled by g++, which is missing")


def engines_of(spec: ModelSpec, **bodies):
    """Engines in numpy of any model."""
    return (causal_engines if spec.caches else tiny_engines)(spec, **bodies)


def showing_its_past(spec: ModelSpec) -> dict:
    """Bodies with which a chunk depends on the one before it."""
    return {} if spec.caches else {"dit": mixing_field}


def colourful(spec: ModelSpec):
    """The tiny decoder, whose grey frames have no colour to be matched, with a fixed tint for every pixel."""
    grey = engines_of(spec)["vae_decoder"]._body
    tint = np.random.default_rng(2).uniform(0.3, 1.0, (*spec.image_size, 3))

    def body(buffers) -> None:
        grey(buffers)
        frames = buffers["frames"]
        if frames.dtype == np.uint8:
            frames[...] = (frames * tint).astype(np.uint8)
        else:
            frames[...] = (frames + 1.0) * tint - 1.0

    return body


class Gpu(PlannedGpu):
    """A fake GPU with the plans of a model whose frames are colourful."""

    def __init__(self, kernels: ctypes.CDLL, spec: ModelSpec, **bodies) -> None:
        picture = np.random.default_rng(1).integers(0, 256, (*spec.image_size, 3), np.uint8)
        super().__init__(kernels, spec, engines_of(spec, **{"vae_decoder": colourful(spec), **bodies}), picture)


@pytest.fixture(params=["stand-in", "GPU"])
def device(request, kernels) -> Device:
    """A device that computes nothing but kernels: the stand-in, and the GPU of this machine if it has one."""
    if request.param == "stand-in":
        cuda = Cuda(FakeCudaDriver(kernels))
        return Device(cuda, cuda.stream(), Kernels(cuda, b"code"), cuda.device_memory(1))
    if not query_driver().devices:
        pytest.skip("needs an NVIDIA GPU")
    cuda = Cuda()
    return Device.open(cuda, cuda.stream(), {"none": HostEngine(GraphInfo("", (), ()), lambda arrays: None)})


def speak(loops, chunk: int) -> None:
    window = np.random.default_rng(chunk).uniform(-1, 1, loops[0].waveform.size).astype(np.float32) * (chunk + 1) / 4
    for loop in loops:
        loop.waveform[...] = window


def assert_same(device, cpu, codes: int = 1) -> None:
    assert device.shape == cpu.shape
    apart = np.abs(device.astype(int) - cpu)
    # The last digit of a float may decide a code.
    assert apart.max() <= codes
    assert apart.mean() < 0.02


def numbers(past: Past) -> np.ndarray:
    """All that a chunk leaves."""
    if isinstance(past, Cached):
        return np.concatenate([v.ravel() for v in (*past.caches.values(), past.sound.state, past.sound.features)])
    return past.latents if isinstance(past, LatentPath) else past


@pytest.mark.parametrize("spec", [TINY, TINY_GUIDED], ids=lambda spec: spec.name)
@pytest.mark.parametrize("capture", [True, False], ids=["graph", "no graph"])
def test_features_of_a_whole_sound_are_taken_instead_of_a_waveform(kernels, spec, capture) -> None:
    gpu = Gpu(kernels, spec)
    loop, oracle = gpu.loop(capture=capture), gpu.oracle()
    shape = (spec.chunk_frames, spec.feature_window, spec.feature_layers, spec.feature_width)
    for chunk in range(4):
        speak((loop, oracle), chunk)
        features = None if chunk == 2 else np.random.default_rng(chunk).uniform(0, 1, shape).astype(np.float32)
        frames, seconds = loop.render(spec.steps, features=features)
        expected, stages = oracle.render(spec.steps, features=features)
        assert_same(frames, expected)
        assert list(seconds) == list(stages)
        assert ("audio_encoder" in seconds) == (features is None)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.new_latents}")
@pytest.mark.parametrize("capture", [True, False], ids=["graph", "no graph"])
def test_chunks_are_those_of_the_cpu(kernels, spec, capture) -> None:
    gpu = Gpu(kernels, spec)
    loop, oracle = gpu.loop(capture=capture), gpu.oracle()
    for chunk in range(4):
        speak((loop, oracle), chunk)
        frames, seconds = loop.render(spec.steps)
        expected, stages = oracle.render(spec.steps)
        assert_same(frames, expected)
        assert list(seconds) == list(stages)
        past = [numbers(one.state.past) for one in (loop, oracle)]
        np.testing.assert_allclose(*past, rtol=1e-4, atol=1e-4 if spec.carry == "clean" else 1e-5)
    assert frames.std() > 0


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.name}-{spec.new_latents}")
def test_the_kernels_are_right_whoever_computes_the_graphs(device, spec) -> None:
    cpu = engines_of(spec, vae_decoder=colourful(spec))
    engines = {name: HostEngine(engine.graph, engine._body) for name, engine in cpu.items()}
    picture = np.random.default_rng(1).integers(0, 256, (*spec.image_size, 3), np.uint8)
    reference = encode_reference(spec, cpu["vae_encoder"], picture)
    loop, oracle = DeviceChunkLoop(device, engines, spec, reference, 3), host_loop(cpu, spec, reference, 3)
    assert loop.notes[0].endswith("the host computes it.")
    for chunk in range(3):
        speak((loop, oracle), chunk)
        assert_same(loop.render(spec.steps)[0], oracle.render(spec.steps)[0])


@pytest.mark.parametrize("spec", CARRIES, ids=lambda spec: spec.name)
def test_a_replayed_chunk_is_one_launch(kernels, spec) -> None:
    gpu = Gpu(kernels, spec)
    loop = gpu.loop()
    assert loop.notes == ()
    # A causal model's first chunk hears what was before it.
    loop.render(spec.steps)
    gpu.driver.calls.clear()
    loop.render(spec.steps)
    assert [call for call in gpu.driver.calls if call != "cuEventElapsedTime"] == [
        "cuCtxSetCurrent",
        "cuGraphLaunch",
        "cuMemcpyDtoDAsync",
        "cuMemcpyDtoHAsync",
        "cuEventRecordWithFlags",
        "cuEventSynchronize",
    ]


def test_the_number_of_steps_and_the_frame_rate_may_change_from_chunk_to_chunk(kernels) -> None:
    spec = dataclasses.replace(TINY, timesteps=(1000.0, 800.0, 600.0, 300.0, 0.0))
    gpu = Gpu(kernels, spec)
    loop, oracle = gpu.loop(), gpu.oracle()
    for chunk, (steps, frame_step) in enumerate([(4, 1), (2, 1), (1, 2), (3, 1), (4, 1)]):
        speak((loop, oracle), chunk)
        assert_same(loop.render(steps, frame_step)[0], oracle.render(steps, frame_step)[0])
    with pytest.raises(EngineError, match="opened for 4 steps, not 5"):
        loop.render(5)


@pytest.mark.parametrize("spec", CARRIES, ids=lambda spec: spec.name)
def test_a_past_that_is_put_back_is_where_the_next_chunk_begins(kernels, spec) -> None:
    gpu = Gpu(kernels, spec, **showing_its_past(spec))
    loop, oracle = gpu.loop(), gpu.oracle()
    pasts = []
    for chunk in range(3):
        speak((loop, oracle), chunk)
        loop.render(spec.steps)
        oracle.render(spec.steps)
        pasts.append((loop.state.past, oracle.state.past))
    for earlier in (0, None):
        for one, past in zip((loop, oracle), pasts[earlier] if earlier is not None else (None, None), strict=True):
            one.restore(one.state.after(past))
        assert_same(loop.render(spec.steps)[0], oracle.render(spec.steps)[0])


@pytest.mark.parametrize("spec", CARRIES, ids=lambda spec: spec.name)
def test_a_chunk_that_is_taken_back_is_rendered_again_bit_for_bit(kernels, spec) -> None:
    loop = Gpu(kernels, spec, **showing_its_past(spec)).loop()
    loop.render(spec.steps)
    before = loop.state
    frames = loop.render(spec.steps)[0].copy()
    loop.restore(before)
    assert np.array_equal(loop.render(spec.steps)[0], frames)


@pytest.mark.parametrize(("field", "value"), [("solver", "heun"), ("carry", "none")])
def test_a_spec_for_which_there_is_no_kernel_is_an_error(field, value) -> None:
    graphs = {name: engine.graph for name, engine in tiny_engines(TINY).items()}
    program = ChunkProgram(dataclasses.replace(TINY, **{field: value}), graphs)
    with pytest.raises(SpecError, match=f"{field} '{value}' is unknown"):
        program.chunk(TINY.schedule())


@pytest.mark.parametrize("spec", [*CARRIES, TINY_PRO], ids=lambda spec: spec.name)
def test_a_session_takes_the_memory_that_was_planned(kernels, spec) -> None:
    gpu = Gpu(kernels, spec)
    graphs = {name: engine.graph for name, engine in gpu.cpu.items()}
    planned = session_memory(Manifest(spec, Precision.FP32, graphs, {}))
    before = gpu.driver.allocated
    gpu.loop()
    assert gpu.driver.allocated - before == planned.total
    assert planned.frames >= spec.decoded_frames * spec.pixels * 3


def test_frames_stay_on_the_device_until_two_more_chunks_are_rendered(kernels) -> None:
    gpu = Gpu(kernels, TINY)
    loop = gpu.loop()
    seen = []
    for chunk, step in enumerate((1, 2, 1)):
        speak((loop,), chunk)
        if chunk == 1:
            # Idle motion is shown in between.
            loop.restore(loop.state.after(loop.state.past))
        frames, _ = loop.render(TINY.steps, step)
        # The fake GPU's memory is the CPU's.
        seen.append((frames, np.from_dlpack(dataclasses.replace(loop.on_device, device=(CPU, 0)))))
        for rendered, kept in seen[-2:]:
            assert np.array_equal(rendered, kept)
    assert not np.array_equal(*seen[0])


def test_frames_on_the_host_are_their_holders_as_long_as_they_are_held(kernels) -> None:
    gpu = Gpu(kernels, TINY)
    loop = gpu.loop()
    allocated = gpu.driver.calls.count("cuMemAllocHost")
    held, copies = [], []
    for chunk in range(6):
        speak((loop,), chunk)
        frames, _ = loop.render(TINY.steps, 1 + chunk % 2)
        held.append(frames)
        copies.append(frames.copy())
    for frames, copy in zip(held, copies, strict=True):
        assert np.array_equal(frames, copy)
    locked = {frames.__array_interface__["data"][0] for frames in held}
    held.clear()
    del frames
    # What was let go of is used again, and nothing new is allocated.
    for _ in range(6):
        frames, _ = loop.render(TINY.steps)
        assert frames.__array_interface__["data"][0] in locked
    assert gpu.driver.calls.count("cuMemAllocHost") == allocated
    # Frames outlive their session.
    expected = frames.copy()
    del loop, gpu
    gc.collect()
    assert np.array_equal(frames, expected)


def test_sessions_on_one_device_do_not_disturb_each_other(kernels) -> None:
    gpu = Gpu(kernels, TINY_CLEAN)
    loops, oracles = [gpu.loop(seed) for seed in (1, 2)], [gpu.oracle(seed) for seed in (1, 2)]
    for chunk in range(3):
        for loop, oracle in zip(loops, oracles, strict=True):
            speak((loop, oracle), chunk)
            assert_same(loop.render(TINY.steps)[0], oracle.render(TINY.steps)[0])


@pytest.mark.parametrize("stage", ["audio_encoder", "conditioner", "dit", "vae_decoder", "vae_encoder"])
def test_nan_is_an_error_that_names_the_stage_and_the_session_can_begin_anew(kernels, stage) -> None:
    outputs = {
        "audio_encoder": "audio_features",
        "conditioner": "audio_key_00",
        "dit": "velocity",
        "vae_decoder": "magnitude",
        "vae_encoder": "latents",
    }
    poisoned = False
    healthy = {name: engine._body for name, engine in tiny_engines(TINY_CLEAN).items()}

    def body(buffers) -> None:
        healthy[stage](buffers)
        if poisoned:
            buffers[outputs[stage]].reshape(-1)[-1] = np.nan
            if stage == "conditioner":
                buffers["audio_value_00"].reshape(-1)[:] = np.nan

    gpu = Gpu(kernels, TINY_CLEAN, **{stage: body})
    loop, oracle = gpu.loop(), gpu.oracle()
    loop.render(TINY.steps)
    poisoned = True
    before = loop.state
    with pytest.raises(NumericalError, match=stage):
        loop.render(TINY.steps)
    assert loop.state is before
    poisoned = False
    for one in (loop, oracle):
        one.restore(LoopState(index=2))
    assert_same(loop.render(TINY.steps)[0], oracle.render(TINY.steps)[0])


def test_a_capture_that_fails_says_why_and_the_chunks_are_the_same(kernels) -> None:
    gpu = Gpu(kernels, TINY)
    gpu.driver.fail_at = "cuStreamEndCapture"
    loop, oracle = gpu.loop(), gpu.oracle()
    gpu.driver.fail_at = ""
    assert "CAPTURE_INVALIDATED" in loop.notes[0]
    speak((loop, oracle), 0)
    assert_same(loop.render(TINY.steps)[0], oracle.render(TINY.steps)[0])
    assert "cuGraphLaunch" not in gpu.driver.calls


def test_a_graph_whose_frames_differ_is_not_used(kernels, monkeypatch) -> None:
    gpu = Gpu(kernels, TINY)
    # The graph ends before the decoder has run.
    monkeypatch.setattr(gpu.driver, "_launch", lambda graph, stream: [do() for do in gpu.driver.handles[graph][:9]])
    loop = gpu.loop()
    assert "codes away" in loop.notes[0]


def test_onnx_runtime_computes_on_the_same_device_memory_and_says_that_it_is_not_captured(tmp_path, kernels) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle", TINY))
    driver = FakeCudaDriver(kernels)
    cuda = Cuda(driver)
    engines = load_engines(bundle, threads=1)
    device = Device(cuda, cuda.stream(), Kernels(cuda, b"code"), cuda.device_memory(1))
    picture = np.full((*TINY.image_size, 3), 70, np.uint8)
    reference = encode_reference(TINY, engines["vae_encoder"], picture)
    loop, oracle = DeviceChunkLoop(device, engines, TINY, reference, 4), ChunkLoop(engines, TINY, reference, 4)
    assert loop.notes == (
        "Chunks run without a CUDA graph: audio_encoder: ONNX Runtime cannot be captured together with other work.",
    )
    for chunk in range(3):
        speak((loop, oracle), chunk)
        assert_same(loop.render(TINY.steps)[0], oracle.render(TINY.steps)[0])


def test_a_session_may_be_opened_while_another_one_renders(kernels) -> None:
    """All work goes into one stream, and what is done while it is captured would end up in the graph."""
    gpu = Gpu(kernels, TINY)
    first, oracle = gpu.loop(), gpu.oracle()
    # Long enough for another thread to come in between.
    gpu.driver.capture_delay = 0.001
    expected = [oracle.render(TINY.steps)[0] for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        opened = [pool.submit(gpu.loop, seed) for seed in range(4)]
        for frames in expected:
            assert_same(first.render(TINY.steps)[0], frames)
        loops = [future.result() for future in opened]
    for seed, loop in enumerate(loops):
        assert loop.notes == ()
        assert_same(loop.render(TINY.steps)[0], gpu.oracle(seed).render(TINY.steps)[0])


def test_a_device_that_is_lost_is_a_sentence(kernels) -> None:
    gpu = Gpu(kernels, TINY)
    loop = gpu.loop()
    gpu.driver.fail_at = "cuEventSynchronize"
    with pytest.raises(EngineError, match="The GPU failed in cuEventSynchronize"):
        loop.render(TINY.steps)


@pytest.mark.parametrize("spec", CARRIES, ids=lambda spec: spec.name)
def test_a_stream_goes_on_with_the_next_engine_when_the_device_is_lost(kernels, spec) -> None:
    gpu = Gpu(kernels, spec)
    make = FallbackLoop.maker(partial(DeviceChunkLoop, gpu.device, gpu.engines), partial(host_loop, gpu.cpu))
    loop, oracle = make(spec, gpu.reference, 3), gpu.oracle()
    for chunk in range(5):
        speak((loop, oracle), chunk)
        gpu.driver.fail_at = "cuEventSynchronize" if chunk >= 2 else ""
        if chunk == 1:
            for one in (loop, oracle):
                one.restore(one.state.after(one.state.past))
        assert_same(loop.render(spec.steps)[0], oracle.render(spec.steps)[0])
        assert (loop.on_device is None) == (chunk >= 2)
    (note,) = loop.notes
    assert note.startswith("Fell back to ONNX Runtime on the CPU at chunk 3: The GPU failed in cuEventSynchronize")


def test_a_nan_is_not_rendered_again_by_another_engine_and_the_last_engine_may_fail() -> None:
    def failing(error: Exception) -> SimpleNamespace:
        def render(steps: int, frame_step: int, features: None) -> None:
            raise error

        return SimpleNamespace(
            render=render, waveform=np.zeros(1, np.float32), notes=(), state=LoopState(), restore=lambda state: None
        )

    loop = FallbackLoop(failing(NumericalError("nan")), lambda: pytest.fail("opened"))
    with pytest.raises(NumericalError):
        loop.render(1)
    loop = FallbackLoop(failing(EngineError("lost")), lambda: failing(EngineError("lost too")))
    with pytest.raises(EngineError, match="lost too"):
        loop.render(1)
    with pytest.raises(EngineError, match="lost too"):
        loop.render(1)


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0", "12.1"])
def test_the_kernels_compile_for_every_gpu_without_one(capability) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    assert compile_kernels(capability).startswith(b"\x7fELF")


def test_a_gpu_that_the_compiler_does_not_know_is_a_sentence() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    with pytest.raises(EngineError, match=r"'kernels.cu' for compute capability 3\.5 .* upgrade nvidia-cuda-nvrtc"):
        compile_kernels("3.5")


def test_the_real_bindings_take_every_call_that_the_loop_makes(kernels) -> None:
    """They look at the arguments before they look for the driver's library."""
    real = pytest.importorskip("cuda.bindings.driver")
    gpu = Gpu(kernels, TINY_CLEAN)
    gpu.loop().render(TINY.steps)
    assert gpu.cuda.compute_capability == "8.9"
    for group in ("CUstream_flags", "CUstreamCaptureMode", "CUevent_flags", "CUevent_record_flags"):
        for name, value in vars(getattr(gpu.driver, group)).items():
            assert getattr(getattr(real, group), name) == value
    if query_driver().version is not None:
        pytest.skip("there is a driver, which must not be given addresses that are not its own")
    assert {"cuLaunchKernel", "cuGraphLaunch", "cuMemsetD8Async", "cuEventElapsedTime"} < set(gpu.driver.arguments)
    for name, arguments in gpu.driver.arguments.items():
        if name == "cuDeviceGetAttribute":
            kinds = real.CUdevice_attribute
            arguments = (kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, *arguments[1:])
        if name == "cuStreamBeginCapture":
            arguments = (arguments[0], real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        with pytest.raises(RuntimeError, match="driver library"):
            getattr(real, name)(*arguments)


def test_every_kernel_of_the_source_is_loaded() -> None:
    source = (ROOT / "runtime" / "loop" / "gpu" / "kernels.cu").read_text()
    assert re.findall(r"__global__ void (\w+)\(", source) == list(KERNELS)
