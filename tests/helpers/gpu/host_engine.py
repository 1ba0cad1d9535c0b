"""Graphs that the host computes on a device's memory: what a GPU can be tested with where no TensorRT runs on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from helpers.bundles.tiny import Body

from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.engines.interface import allocate
from rap_edge.runtime.machine.cuda import CudaStream, DeviceMemory


class HostEngine:
    """`DeviceEngine` of a Python function over arrays."""

    activation_bytes = 0

    def __init__(self, graph: GraphInfo, body: Body) -> None:
        self.graph, self._body = graph, body

    def bind(
        self, stream: CudaStream, addresses: Mapping[str, int], sizes: Mapping[str, int], activations: DeviceMemory
    ) -> HostExecution:
        return HostExecution(self.graph, self._body, stream, addresses, allocate(self.graph, None, sizes))

    def keep_kernels(self) -> None:
        pass


class HostExecution:
    """Copies inputs to the host, computes, and copies outputs back, in the stream's order."""

    def __init__(
        self,
        graph: GraphInfo,
        body: Body,
        stream: CudaStream,
        addresses: Mapping[str, int],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self._graph, self._body, self._stream, self._addresses, self._arrays = graph, body, stream, addresses, arrays

    def enqueue(self) -> None:
        for tensor in self._graph.inputs:
            self._stream.download(self._arrays[tensor.name], self._addresses[tensor.name])
        self._stream.synchronize()
        self._body(self._arrays)
        for tensor in self._graph.outputs:
            self._stream.upload(self._addresses[tensor.name], self._arrays[tensor.name])

    def uncapturable(self) -> str:
        return "the host computes it"
