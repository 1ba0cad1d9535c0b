"""What all sessions on one GPU share: its context, the kernels, and the memory for the engines' activations."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...engines.interface import DeviceEngine
from ...machine.cuda import Cuda, CudaStream, DeviceMemory
from .kernels import Kernels, compile_kernels


@dataclass(frozen=True)
class Device:
    """A GPU that runs chunks.

    One stream and one arena serve all engines, and all sessions but those of another lane. `turn` is held by whoever
    puts work into the stream, until it has ended: what another thread did meanwhile would end up in a graph that is
    being captured.
    """

    cuda: Cuda
    stream: CudaStream
    kernels: Kernels
    arena: DeviceMemory
    turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, cuda: Cuda, stream: CudaStream, engines: Mapping[str, DeviceEngine]) -> Device:
        """Compile the kernels for the GPU and allocate the arena; raises `EngineError` if either fails."""
        kernels = Kernels(cuda, compile_kernels(cuda.compute_capability))
        return cls(cuda, stream, kernels, _arena(cuda, engines))

    def lane(self, engines: Mapping[str, DeviceEngine]) -> Device:
        """The same GPU with a stream, an arena and turns of its own; raises `EngineError` if there is no room."""
        return replace(self, stream=self.cuda.stream(), arena=_arena(self.cuda, engines), turn=threading.Lock())


def _arena(cuda: Cuda, engines: Mapping[str, DeviceEngine]) -> DeviceMemory:
    return cuda.device_memory(max(max(engine.activation_bytes for engine in engines.values()), 1))
