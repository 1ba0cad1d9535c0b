"""A stand-in for a GPU that has plans of a model: its engines are functions over arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np
from helpers.bundles.tiny import NumpyEngine
from helpers.gpu.fake_gpu import FakeCudaDriver, module_of

from rap_edge.runtime.engines.tensorrt_engine import TensorRtEngine
from rap_edge.runtime.loop.gpu.kernels import Kernels
from rap_edge.runtime.loop.gpu.loop import DeviceChunkLoop
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.loop.interface import Loop, encode_reference
from rap_edge.runtime.loop.on_host import host_loop
from rap_edge.runtime.machine.cuda import Cuda
from rap_edge.runtime.spec import ModelSpec


class PlannedGpu:
    """The model's engines on the processor, and the same as plans on the GPU."""

    def __init__(
        self, kernels: ctypes.CDLL, spec: ModelSpec, cpu: Mapping[str, NumpyEngine], picture: np.ndarray
    ) -> None:
        self.spec, self.driver, self.cpu = spec, FakeCudaDriver(kernels), cpu
        self.reference = encode_reference(spec, cpu["vae_encoder"], picture)
        self.cuda = Cuda(self.driver)
        self.engines = {
            name: TensorRtEngine(
                name, engine.graph, b"plan", module_of(self.driver, engine.graph, spec, engine._body), self.cuda
            )
            for name, engine in cpu.items()
        }
        arena = self.cuda.device_memory(1000)
        self.device = Device(self.cuda, self.cuda.stream(), Kernels(self.cuda, b"code"), arena)

    def loop(self, seed: int = 3, **options) -> DeviceChunkLoop:
        return DeviceChunkLoop(self.device, self.engines, self.spec, self.reference, seed, **options)

    def oracle(self, seed: int = 3) -> Loop:
        return host_loop(self.cpu, self.spec, self.reference, seed)
