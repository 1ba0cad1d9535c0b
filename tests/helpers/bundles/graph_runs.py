"""Helpers that run ONNX models in plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from torch import nn

from rap_edge.export.capture.five_graphs import simplify


def plain_session(model: ir.Model | Path) -> ort.InferenceSession:
    """A single-threaded CPU session without any package of ours."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: ir.Model | Path, feeds: Mapping[str, NDArray]) -> list[NDArray]:
    """All outputs of one run."""
    return plain_session(model).run(None, dict(feeds))


def run_strictly(model: ir.Model, feeds: Mapping[str, NDArray]) -> list[NDArray]:
    """All outputs of one run that rounds every value to its type.

    ONNX Runtime's CPU kernels compute fp16 in fp32 and may skip the rounding between them, which hides overflow.
    """
    return ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, dict(feeds))


def exported(module: nn.Module, *arguments: torch.Tensor, dynamic_shapes: object = None) -> ir.Model:
    """A small module as an fp32 model with constants as initialisers."""
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            opset_version=23,
            dynamic_shapes=dynamic_shapes,
            optimize=False,
            verbose=False,
        )
    simplify(program.model)
    return program.model


def count(model: ir.Model, op_type: str) -> int:
    """How many nodes of that type the graph has."""
    return sum(node.op_type == op_type for node in model.graph)


def lifted(module: nn.Module, *arguments: torch.Tensor, dynamic_shapes=None) -> ir.Model:
    model = exported(module, *arguments, dynamic_shapes=dynamic_shapes)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def feeds(model: ir.Model, x: torch.Tensor) -> dict[str, np.ndarray]:
    return {str(model.graph.inputs[0].name): x.numpy()}


def assert_same(model: ir.Model, module: nn.Module, x: torch.Tensor) -> None:
    """The model computes what the module does, within what fp32 rounds off of each output's largest value."""
    with torch.no_grad():
        expected = module(x)
    references = [expected] if isinstance(expected, torch.Tensor) else expected
    for got, reference in zip(run(model, feeds(model, x)), references, strict=True):
        scale = max(1.0, float(reference.abs().max()))
        np.testing.assert_allclose(got, reference.numpy(), atol=1e-5 * scale, rtol=1e-5)
