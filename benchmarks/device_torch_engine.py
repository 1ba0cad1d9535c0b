"""PyTorch's kernels as engines on a device's memory, as `rap_edge.export.capture.torch_engine` is on the host's.

Loop, capture, state on the device and frames can be proved with these on a GPU that has nothing but PyTorch, and
"PyTorch in one CUDA graph" is the competitor that plans have to beat.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch_loop import HalfFrameEncoder

from rap_edge.export.capture.five_graphs import graph_sources
from rap_edge.export.capture.torch_engine import TorchEngine
from rap_edge.models.networks import Networks
from rap_edge.runtime.bundle.contract import contract
from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.engines.interface import resolved_shape
from rap_edge.runtime.machine.cuda import CudaStream, DeviceMemory


class DeviceTorchEngine(TorchEngine):
    """One graph's module on a device: `Engine` over arrays of the host, and `DeviceEngine` in memory of the device."""

    activation_bytes = 0

    def bind(
        self, stream: CudaStream, addresses: Mapping[str, int], sizes: Mapping[str, int], activations: DeviceMemory
    ) -> DeviceTorchExecution:
        """See `DeviceEngine.bind`; PyTorch has working memory of its own."""
        inputs, outputs = (
            [
                _tensor_at(addresses[item.name], resolved_shape(item, sizes), item.dtype, self._device)
                for item in tensors
            ]
            for tensors in (self.graph.inputs, self.graph.outputs)
        )
        on_gpu = self._device.type == "cuda"
        return DeviceTorchExecution(
            self.module, inputs, outputs, torch.cuda.ExternalStream(stream.handle) if on_gpu else None
        )

    def keep_kernels(self) -> None:
        """Nothing is compiled."""


class DeviceTorchExecution:
    """A module bound to memory that the loop owns; its work goes into the loop's stream."""

    def __init__(
        self, module: nn.Module, inputs: list[Tensor], outputs: list[Tensor], stream: torch.cuda.Stream | None
    ) -> None:
        """Made by `DeviceTorchEngine.bind`; without a stream the CPU computes."""
        self._module, self._inputs, self._outputs, self._stream = module, inputs, outputs, stream

    @torch.inference_mode()
    def enqueue(self) -> None:
        """Put the module's kernels into the stream."""
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            found = self._module(*self._inputs)
            for target, value in zip(self._outputs, (found,) if isinstance(found, Tensor) else found, strict=True):
                target.copy_(value)

    def uncapturable(self) -> str:
        """PyTorch's kernels can be captured once they have run."""
        return "PyTorch on the CPU cannot be captured" if self._stream is None else ""


class _InPrecision(nn.Module):
    """A module whose floats arrive as its weights are; the timestep stays float32."""

    def __init__(self, module: nn.Module, graph: GraphInfo, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self._dtype = module, dtype
        self._kept = [tensor.name == "timestep" for tensor in graph.inputs]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        found: Tensor | tuple[Tensor, ...] = self.module(
            *(
                tensor.to(self._dtype) if tensor.is_floating_point() and not kept else tensor
                for tensor, kept in zip(inputs, self._kept, strict=True)
            )
        )
        return found


def device_torch_engines(networks: Networks, device: torch.device, dtype: torch.dtype) -> dict[str, DeviceTorchEngine]:
    """The five graphs of networks, which are moved to `device` in `dtype`."""
    for network in (networks.dit, networks.vae, networks.audio_encoder):
        network.to(device, dtype)
    modules = {name: source.module for name, source in graph_sources(networks).items()}
    modules["vae_encoder"] = HalfFrameEncoder(networks.vae).eval()
    ends = contract(networks.spec, "float32" if dtype == torch.float32 else "float16")
    graphs = {name: GraphInfo("", *ends[name]) for name in modules}
    return {
        name: DeviceTorchEngine(name, _InPrecision(module, graphs[name], dtype), graphs[name], device)
        for name, module in modules.items()
    }


class _Foreign:
    """Memory of somebody else, as PyTorch takes it."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: str) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "strides": None,
            "typestr": np.dtype(dtype).str,
            "data": (address, False),
            "version": 3,
            "stream": None,
        }


def _tensor_at(address: int, shape: tuple[int, ...], dtype: str, device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.as_tensor(_Foreign(address, shape, dtype), device=device)
    block = (ctypes.c_ubyte * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(address)
    return torch.from_numpy(np.frombuffer(block, dtype).reshape(shape))
