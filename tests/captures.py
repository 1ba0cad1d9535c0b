"""Captured graphs, shared by the tests of a run: torch takes seconds for each, and many tests export equal networks."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import pickle
from collections.abc import Callable

import onnx_ir as ir
import pytest
import torch

from rap_edge.export import exporter, graphs
from rap_edge.export.graphs import GraphSource
from rap_edge.runtime.spec import ModelSpec

Capture = Callable[[GraphSource, ModelSpec], ir.Model]


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


class _Pickler(pickle.Pickler):
    """Pickles tensors by content; torch's own way gives other bytes every time."""

    def reducer_override(self, value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        content = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return _content, (type(value), str(value.dtype), value.shape, value.stride(), value.requires_grad, content)


def _content(*parts: object) -> object:
    return parts


def _fingerprint(*values: object) -> str:
    """Equal for values of equal content: a module's code is its class, its sizes and weights are in it."""
    pickled = io.BytesIO()
    _Pickler(pickled).dump(values)
    return hashlib.sha256(pickled.getbuffer()).hexdigest()
