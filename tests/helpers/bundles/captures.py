"""Captured graphs, shared by the tests of a run: torch takes seconds for each, and many tests export equal networks."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable

import onnx_ir as ir
import pytest
import torch

from rap_edge.export import exporter
from rap_edge.export.capture import five_graphs as graphs
from rap_edge.export.capture.five_graphs import GraphSource
from rap_edge.runtime.spec import ModelSpec

Capture = Callable[[GraphSource, ModelSpec], ir.Model]
# Of a module: what is looked at one by one.
_HELD_APART = ("_parameters", "_buffers", "_modules")


def capture_once(capture: Capture) -> Capture:
    """`capture`, asked once for equal modules; everybody gets a model of their own."""
    models: dict[str, ir.Model] = {}

    def captured(source: GraphSource, spec: ModelSpec) -> ir.Model:
        key = _fingerprint(source, spec)
        if key not in models:
            # A model's weights are its module's, which a test may change.
            models[key] = capture(copy.deepcopy(source), spec)
        return _clone(models[key])

    return captured


def _clone(model: ir.Model) -> ir.Model:
    """A clone whose values have types of their own: ONNX IR's would share them, and passes change them in place."""
    clone, types = model.clone(), dict[int, object]()
    for graph in clone.graphs():
        for value in (*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)):
            value.type = copy.deepcopy(value.type, types)
    return clone


def share_captures(patch: pytest.MonkeyPatch) -> None:
    """Let exports capture equal graphs once, and torch build its table of ONNX operators once."""
    once = capture_once(graphs.capture)
    for module in (graphs, exporter):
        patch.setattr(module, "capture", once)
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another torch, whose exports are as slow as they are
        return
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))


def _fingerprint(source: GraphSource, spec: ModelSpec) -> str:
    """Equal for equal networks: a module's code is its class; its sizes, settings and weights are what it holds."""
    digest = hashlib.sha256(repr((spec, source.name, source.inputs, source.outputs)).encode())
    for path, module in source.module.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in _HELD_APART}
        digest.update(repr((path, type(module).__module__, type(module).__qualname__, own)).encode())
    for name, tensor in (*source.module.named_parameters(), *source.module.named_buffers()):
        digest.update(repr((name, tensor.dtype, tensor.shape, tensor.stride())).encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
