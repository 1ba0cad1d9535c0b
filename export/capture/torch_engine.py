"""PyTorch as an engine: the networks behind the runtime's `Engine` interface.

The reference roll-out of the parity check and the PyTorch column of `rap-bench` run the runtime's own chunk loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.engines.interface import Array, allocate
from rap_edge.runtime.spec import AudioEncodeMode

from .five_graphs import graph_sources
from .own_model import AnyNetworks
from .signature import call

_CPU = torch.device("cpu")


class TorchExecution:
    """One session's buffers and the shared module."""

    def __init__(
        self, name: str, module: nn.Module, graph: GraphInfo, buffers: dict[str, Array], device: torch.device
    ) -> None:
        self.buffers: Mapping[str, Array] = MappingProxyType(buffers)
        self._name, self._module, self._device = name, module, device
        self._shapes = {tensor.name: buffers[tensor.name].shape for tensor in graph.outputs}
        # from_numpy shares memory, so inputs are read where the loop writes them.
        self._inputs = [torch.from_numpy(buffers[tensor.name]) for tensor in graph.inputs]
        self._outputs = [torch.from_numpy(buffers[tensor.name]) for tensor in graph.outputs]

    def run(self) -> None:
        """Run the module on the bound buffers."""
        with torch.inference_mode():
            inputs = (tensor.to(self._device) for tensor in self._inputs)
            for buffer, result in zip(self._outputs, call(self._name, self._module, inputs, self._shapes), strict=True):
                buffer.copy_(result)

    def capture(self) -> str:
        """Eager PyTorch replays nothing."""
        return "PyTorch runs eagerly"


class TorchEngine:
    """One graph of a model as a PyTorch module in fp32."""

    def __init__(self, name: str, module: nn.Module, graph: GraphInfo, device: torch.device) -> None:
        self.name, self.module, self.graph, self._device = name, module, graph, device
        self.backend = f"torch {torch.__version__}"
        self.device = f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)

    def prepare(
        self, buffers: Mapping[str, Array] | None = None, sizes: Mapping[str, int] | None = None
    ) -> TorchExecution:
        """Bind buffers; see `Engine.prepare`."""
        return TorchExecution(self.name, self.module, self.graph, allocate(self.graph, buffers, sizes), self._device)


def torch_engines(
    networks: AnyNetworks, device: torch.device = _CPU, mode: AudioEncodeMode = "stream"
) -> dict[str, TorchEngine]:
    """An engine for every graph of the contract, sharing the networks' weights, which are on `device`."""
    return {
        name: TorchEngine(name, source.module, GraphInfo("", source.inputs, source.outputs), device)
        for name, source in graph_sources(networks, mode).items()
    }
