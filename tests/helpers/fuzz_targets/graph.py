"""An ONNX graph: what the check lets through has no harm in it when ONNX's own parser reads it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from helpers.fuzz_targets.mutations import byte_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rap_edge.runtime.checks.graph_check import check_graph

_DATA = "graph.data"


def _model() -> ModelProto:
    """A little of everything: branches within branches, functions that call functions, weights here and beside."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "inner", [], [y])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    outer = helper.make_graph([branch], "outer", [], [y])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["c"], ["m"], then_branch=outer, else_branch=outer),
        helper.make_node("F", ["m"], ["n"], domain="own"),
        helper.make_node("Add", ["n", "w"], ["y"]),
    ]
    calls = [helper.make_node("G", list(ends[0]), list(ends[1]), domain="own") for ends in ("am", "mb")]
    negate = [helper.make_node("Neg", ["a"], ["b"])]
    functions = [
        helper.make_function("own", "F", ["a"], ["b"], calls, opsets),
        helper.make_function("own", "G", ["a"], ["b"], negate, opsets),
    ]
    beside = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    beside.external_data.add(key="location", value=_DATA)
    weights = [numpy_helper.from_array(np.ones(4, np.float32), "w"), beside]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def _read(content: bytes) -> None:
    check_graph("dit", content, [_DATA])
    read = ModelProto()
    try:
        read.ParseFromString(content)
    except DecodeError:
        return
    own = {(item.domain, item.name) for item in read.functions}
    for node in _nodes(read):
        standard = node.domain in ("", "ai.onnx")
        assert standard or (node.domain, node.op_type) in own
        assert not (standard and node.op_type in ("Loop", "Scan", "SequenceMap"))
        for attribute in node.attribute:
            assert attribute.t.data_location == TensorProto.DEFAULT
    for tensor in read.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            assert [entry.value for entry in tensor.external_data if entry.key == "location"] == [_DATA]


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    waiting = [*model.graph.node, *(node for item in model.functions for node in item.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += [inner for graph in (attribute.g, *attribute.graphs) for inner in graph.node]


GRAPH = Target("graph", byte_mutants(_model().SerializeToString()) | st.binary(max_size=64), _read)
