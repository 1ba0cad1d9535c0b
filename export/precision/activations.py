"""How large the activations of a network get, which decides whether fp16 can hold them.

ONNX Runtime's CPU kernels compute fp16 graphs in fp32, so running one there cannot show an overflow; this does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Peaks:
    """Largest magnitudes that went into and came out of every module of one graph, by the module's path."""

    inputs: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)

    def largest(self) -> dict[str, object]:
        """The module with the largest output, and its magnitude, for the manifest."""
        module, magnitude = max(self.outputs.items(), key=lambda item: item[1], default=("", 0.0))
        return {"module": module, "magnitude": magnitude}


class ActivationPeaks:
    """Peaks by graph name, collected while `watch` is open."""

    def __init__(self) -> None:
        self.graphs: dict[str, Peaks] = {}
        self._paths: dict[str, dict[nn.Module, str]] = {}
        self._running = ""

    @contextmanager
    def watch(self, graphs: Mapping[str, nn.Module]) -> Iterator[None]:
        """Look at the float outputs of every module below `graphs`; graphs may share modules."""
        self._paths = {graph: {module: path for path, module in root.named_modules()} for graph, root in graphs.items()}
        modules = {module for paths in self._paths.values() for module in paths}
        handles = [root.register_forward_pre_hook(self._begin(graph)) for graph, root in graphs.items()]
        try:
            handles += [module.register_forward_hook(self._look) for module in modules]
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, graph: str) -> Callable[[nn.Module, object], None]:
        def begin(module: nn.Module, inputs: object) -> None:
            self._running = graph

        return begin

    def _look(self, module: nn.Module, inputs: object, output: object) -> None:
        path = self._paths[self._running][module]
        peaks = self.graphs.setdefault(self._running, Peaks())
        _raise_to(peaks.inputs, path, inputs)
        _raise_to(peaks.outputs, path, output)


def _raise_to(peaks: dict[str, float], path: str, values: object) -> None:
    for tensor in values if isinstance(values, tuple) else (values,):
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
            low, high = torch.aminmax(tensor)
            peaks[path] = max(peaks.get(path, 0.0), abs(float(low)), abs(float(high)))
