"""Sharing captured graphs changes no test: only equal networks share, and nobody sees what another does to them."""

import dataclasses

import onnx_ir as ir
import torch
from helpers.bundles.captures import Capture, capture_once
from helpers.bundles.small import NANO, SMALL, small_networks

from rap_edge.export.capture.five_graphs import GraphSource, graph_sources
from rap_edge.runtime.spec import ModelSpec


def conditioner(seed: int = 0) -> GraphSource:
    return graph_sources(small_networks(SMALL, NANO, seed))["conditioner"]


def counting() -> tuple[list[GraphSource], Capture]:
    asked: list[GraphSource] = []

    def capture(source: GraphSource, spec: ModelSpec) -> ir.Model:
        asked.append(source)
        weight = next(source.module.parameters())
        tensor = ir.tensor(weight.detach().numpy(), name="weight")
        value = ir.Value(name="weight", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        return ir.Model(ir.Graph([], [], nodes=[], initializers=[value], name=spec.name), ir_version=11)

    return asked, capture_once(capture)


def test_equal_networks_are_captured_once_and_others_anew() -> None:
    asked, capture = counting()
    capture(conditioner(), SMALL)
    capture(conditioner(), SMALL)
    assert len(asked) == 1
    capture(conditioner(seed=1), SMALL)
    capture(conditioner(), dataclasses.replace(SMALL, name="other"))
    assert len(asked) == 3


def test_one_changed_weight_or_attribute_is_another_network() -> None:
    asked, capture = counting()
    changed, extended = conditioner(), conditioner()
    with torch.no_grad():
        next(changed.module.parameters()).view(-1)[0] += 1e-6
    extended.module.extra = 1.5
    for source in (conditioner(), changed, extended):
        capture(source, SMALL)
    assert len(asked) == 3


def test_what_is_done_to_a_model_or_to_the_networks_afterwards_stays_there() -> None:
    _, capture = counting()
    source = conditioner()
    model, expected = capture(source, SMALL), next(source.module.parameters()).detach().clone()
    value = model.graph.initializers["weight"]
    value.dtype, value.shape = ir.DataType.FLOAT16, ir.Shape([1])
    model.graph.initializers.clear()
    with torch.no_grad():
        next(source.module.parameters()).zero_()
    again = capture(conditioner(), SMALL).graph.initializers["weight"]
    assert (again.dtype, tuple(again.shape)) == (ir.DataType.FLOAT, expected.shape)
    assert torch.equal(torch.from_numpy(again.const_value.numpy()), expected)
