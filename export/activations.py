"""How large the activations of a network get, which decides whether fp16 can hold them.

ONNX Runtime's CPU kernels compute fp16 graphs in fp32, so running one there cannot show an overflow; this does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rap_edge.runtime.errors import ExportError

from .precision import FP16_MAX


@dataclass(frozen=True)
class Peak:
    """The largest magnitude that came out of a graph's modules, and which module gave it."""

    magnitude: float
    module: str


@dataclass
class ActivationPeaks:
    """Peaks by graph name, collected while `watch` is open."""

    peaks: dict[str, Peak] = field(default_factory=dict)

    _running: str = ""

    @contextmanager
    def watch(self, graphs: Mapping[str, nn.Module]) -> Iterator[None]:
        """Look at the float outputs of every module below `graphs`; graphs may share modules."""
        modules = {id(module): (module, name) for root in graphs.values() for name, module in root.named_modules()}
        handles = [root.register_forward_pre_hook(self._begin(graph)) for graph, root in graphs.items()]
        try:
            handles += [module.register_forward_hook(self._look_at(name)) for module, name in modules.values()]
            yield
        finally:
            for handle in handles:
                handle.remove()

    def require_half(self) -> None:
        """Raise `ExportError` if an activation is beyond fp16; names the graph and the module."""
        for graph, peak in self.peaks.items():
            if peak.magnitude > FP16_MAX:
                raise ExportError(
                    f"Graph {graph!r} cannot run in fp16: the output of {peak.module or 'the network'!r} reaches "
                    f"{peak.magnitude:.3g} on real inputs and fp16 ends at {FP16_MAX:.0f}; export with "
                    "--precision fp32."
                )

    def _begin(self, graph: str) -> Callable[[nn.Module, object], None]:
        def begin(module: nn.Module, inputs: object) -> None:
            self._running = graph

        return begin

    def _look_at(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            for tensor in output if isinstance(output, tuple) else (output,):
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                    low, high = torch.aminmax(tensor)
                    magnitude = max(abs(float(low)), abs(float(high)))
                    known = self.peaks.get(self._running)
                    if known is None or magnitude > known.magnitude:
                        self.peaks[self._running] = Peak(magnitude, name)

        return look
