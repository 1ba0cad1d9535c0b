"""The engine interface: three verbs, and nothing about models.

`prepare` may be slow and may fail; it binds fixed buffers. `run` is hot: it never allocates or rebinds.
`capture` is optional and lets a backend freeze the work into a graph. After TensorRT-Edge-LLM's executor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import GraphInfo, TensorInfo
from ..errors import EngineError
from ..machine.cuda import CudaStream, DeviceMemory

Array = NDArray[Any]


class Execution(Protocol):
    """One engine bound to one session's buffers."""

    buffers: Mapping[str, Array]

    def run(self) -> None:
        """Read the input buffers and fill the output buffers. Raises `EngineError` if the engine fails."""

    def capture(self) -> str:
        """Freeze the work into a replayable graph; returns "" or the reason why the backend runs without."""


class Engine(Protocol):
    """Loaded weights and code of one graph, shared by all sessions and safe to use from several threads."""

    backend: str
    device: str
    graph: GraphInfo

    def prepare(self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None) -> Execution:
        """Bind buffers and allocate the missing ones.

        Args:
            buffers: arrays to use for inputs and outputs by name; C-contiguous, of the contract's dtype and shape.
            sizes: values of the free dimensions by name.

        Raises:
            EngineError: a buffer does not fit the contract, or a free dimension has no size.
        """


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


def allocate(
    graph: GraphInfo, buffers: Mapping[str, Array] | None, sizes: Mapping[str, int] | None
) -> dict[str, Array]:
    """A buffer for every tensor of `graph`: the given ones, checked, and zeroed new ones for the rest.

    Raises:
        EngineError: as `Engine.prepare`.
    """
    given, result = dict(buffers or {}), {}
    for tensor in (*graph.inputs, *graph.outputs):
        shape = resolved_shape(tensor, sizes or {})
        buffer = given.pop(tensor.name, None)
        if buffer is None:
            buffer = np.zeros(shape, dtype=tensor.dtype)
        elif buffer.shape != shape or buffer.dtype != tensor.dtype or not buffer.flags.c_contiguous:
            raise EngineError(
                f"The buffer for {tensor.name!r} is {buffer.dtype}{list(buffer.shape)} but the graph takes "
                f"contiguous {tensor.dtype}{list(shape)}; export the bundle again."
            )
        result[tensor.name] = buffer
    if given:
        raise EngineError(f"The graph has no input or output {sorted(given)[0]!r}; export the bundle again.")
    return result


def resolved_shape(tensor: TensorInfo, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The tensor's shape with its free dimensions filled in; raises `EngineError` if one has no size."""
    missing = [d for d in tensor.shape if isinstance(d, str) and d not in sizes]
    if missing:
        raise EngineError(f"The free dimension {missing[0]!r} of {tensor.name!r} needs a size; pass one.")
    return tuple(sizes[d] if isinstance(d, str) else d for d in tensor.shape)
