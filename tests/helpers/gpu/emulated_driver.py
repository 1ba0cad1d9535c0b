"""A driver, a module and a bundle with plans: everything that a GPU machine would have."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnxruntime as ort
import pytest
from helpers.bundles.planned import FITTING
from helpers.gpu.fake_gpu import FakeCudaDriver, FakeEngine, module_of

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.loop.gpu import shared as device
from rap_edge.runtime.machine.cuda import Cuda


def tensorrt(bundle: Bundle, driver: FakeCudaDriver) -> ModuleType:
    """A module `tensorrt_rtx` that runs "plan of NAME" as the bundle's graph of that name."""
    modules = {}
    for name, graph in bundle.manifest.graphs.items():
        session = ort.InferenceSession(str(bundle.path(graph.file)))

        def body(arrays, graph=graph, session=session) -> None:
            names = [tensor.name for tensor in graph.outputs]
            results = session.run(names, {tensor.name: arrays[tensor.name] for tensor in graph.inputs})
            for output, result in zip(names, results, strict=True):
                arrays[output][...] = result

        modules[name] = module_of(driver, graph, bundle.manifest.spec, body)
    some = modules["dit"]
    module = ModuleType("tensorrt_rtx")
    module.__version__ = "1.7.1.116"
    module.ILogger = some.ILogger
    module.ExecutionContextAllocationStrategy = some.ExecutionContextAllocationStrategy
    module.Runtime = lambda logger: SimpleNamespace(
        engine_host_code_allowed=None,
        deserialize_cuda_engine=lambda data: FakeEngine(modules[bytes(data).decode().removeprefix("plan of ")]),
    )
    return module


@pytest.fixture
def gpu_driver(kernels: ctypes.CDLL) -> FakeCudaDriver:
    return FakeCudaDriver(kernels)


@pytest.fixture
def driver(folder: Path, gpu_driver: FakeCudaDriver, monkeypatch) -> FakeCudaDriver:
    """The driver of a machine with a GPU that fits the plans of `folder`."""
    driver = gpu_driver
    module = tensorrt(Bundle.open(folder), driver)
    monkeypatch.setattr("rap_edge.runtime.engines.backend.this_machine", lambda: FITTING)
    monkeypatch.setattr("rap_edge.runtime.engines.tensorrt_engine.Cuda", lambda: Cuda(driver))
    monkeypatch.setattr("rap_edge.runtime.engines.tensorrt_engine.load_module", lambda candidate: module)
    monkeypatch.setattr(device, "compile_kernels", lambda capability: capability.encode())
    return driver
