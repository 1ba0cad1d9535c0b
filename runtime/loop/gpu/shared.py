"""What all sessions on one GPU share: its context, the kernels, and the memory for the engines' activations."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...bundle.manifest import GraphInfo
from ...machine.cuda import Cuda, CudaStream, DeviceMemory
from .kernels import Kernels, compile_kernels


class DeviceExecution(Protocol):
    """One engine bound to device buffers and a stream."""

    def enqueue(self) -> None:
        """Put the engine's work into the stream; raises `EngineError` if it is refused."""

    def uncapturable(self) -> str:
        """Why that work cannot be captured into a CUDA graph; "" if it can."""


class DeviceEngine(Protocol):
    """An engine that works on memory of the device."""

    graph: GraphInfo

    @property
    def activation_bytes(self) -> int:
        """Device memory that it needs while it works."""

    def bind(
        self,
        stream: CudaStream,
        addresses: Mapping[str, int],
        sizes: Mapping[str, int],
        activations: DeviceMemory,
    ) -> DeviceExecution:
        """Bind every tensor to device memory.

        Args:
            stream: where the work goes.
            addresses: by tensor name, contiguous and aligned to 256 bytes.
            sizes: values of the free dimensions by name.
            activations: working memory, used while the engine runs.

        Raises:
            EngineError: the engine refuses a shape or an address.
        """

    def keep_kernels(self) -> None:
        """Called after a first run: keep what was compiled for it, if anything."""


@dataclass(frozen=True)
class Device:
    """A GPU that runs chunks.

    One stream and one arena serve all engines and sessions. `turn` is held by whoever puts work into the stream, until
    it has ended: what another thread did meanwhile would end up in a graph that is being captured.
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
        arena = cuda.device_memory(max(max(engine.activation_bytes for engine in engines.values()), 1))
        return cls(cuda, stream, kernels, arena)
