"""A graph from a stranger is refused before ONNX Runtime sees it if it is a bomb, or reads what nobody has checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rap_edge.runtime.checks.graph_check import MAX_DEPTH, MAX_NODES, check_graph
from rap_edge.runtime.errors import BundleError

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
X, Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")


def graph(nodes: Sequence[NodeProto], weights: Sequence[TensorProto] = ()) -> GraphProto:
    return helper.make_graph(nodes, "g", [X], [Y], weights)


def model(
    nodes: Sequence[NodeProto], functions: Sequence[FunctionProto] = (), weights: Sequence[TensorProto] = ()
) -> ModelProto:
    return helper.make_model(graph(nodes, weights), functions=functions, opset_imports=OPSETS, ir_version=10)


def function(name: str, nodes: Sequence[NodeProto]) -> FunctionProto:
    return helper.make_function("own", name, ["a"], ["b"], nodes, OPSETS)


def call(name: str, source: str = "a", result: str = "b") -> NodeProto:
    return helper.make_node(name, [source], [result], domain="own")


def external(name: str = "w", location: str = "graph.data") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def branch(depth: int) -> NodeProto:
    """An If within Ifs."""
    inner = [branch(depth - 1)] if depth > 1 else [helper.make_node("Neg", ["x"], ["y"])]
    body = helper.make_graph(inner, "b", [], [Y])
    return helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)


ADD = helper.make_node("Add", ["x", "w"], ["y"])
NEG = helper.make_node("Neg", ["x"], ["y"])
WEIGHT = numpy_helper.from_array(np.ones(4, np.float32), "w")


@pytest.mark.parametrize(
    "harmless",
    [
        model([NEG]),
        model([ADD], weights=[WEIGHT]),
        model([ADD], weights=[external()]),
        model([call("F", "x", "y")], [function("F", [helper.make_node("Neg", ["a"], ["b"])])]),
        model([branch(MAX_DEPTH)]),
    ],
)
def test_graphs_as_the_exporter_writes_them_are_taken(harmless: ModelProto) -> None:
    check_graph("dit", harmless.SerializeToString(), ["graph.data"])


def doubling(levels: int) -> ModelProto:
    """Each function calls the one before it twice."""
    functions = [function("F0", [helper.make_node("Neg", ["a"], ["b"])])]
    for level in range(1, levels + 1):
        last = f"F{level - 1}"
        functions.append(function(f"F{level}", [call(last, "a", "m"), call(last, "m", "b")]))
    return model([call(f"F{levels}", "x", "y")], functions)


def wide(calls: int) -> ModelProto:
    """Functions of many calls, few within each other."""
    functions = [function("F0", [helper.make_node("Neg", ["a"], ["b"])])]
    functions += [function(f"F{level}", [call(f"F{level - 1}")] * calls) for level in range(1, MAX_DEPTH)]
    return model([call(f"F{MAX_DEPTH - 1}", "x", "y")], functions)


@pytest.mark.parametrize("levels", [28, 10_000])
def test_functions_that_double_each_other_are_refused_at_once(levels: int) -> None:
    with pytest.raises(BundleError, match=f"more than {MAX_DEPTH} functions within each other"):
        check_graph("dit", doubling(levels).SerializeToString(), [])


def test_a_graph_is_measured_with_its_functions_written_out() -> None:
    bomb = wide(16)
    assert len(bomb.SerializeToString()) < 5000
    assert 16 ** (MAX_DEPTH - 1) == 2**28
    with pytest.raises(BundleError, match=f"'dit' has more than {MAX_NODES} nodes once its functions are written out"):
        check_graph("dit", bomb.SerializeToString(), [])
    check_graph("dit", wide(2).SerializeToString(), [])


def test_so_many_nodes_and_no_more() -> None:
    check_graph("dit", model([NEG] * MAX_NODES).SerializeToString(), [])
    with pytest.raises(BundleError, match="nodes"):
        check_graph("dit", model([NEG] * (MAX_NODES + 1)).SerializeToString(), [])


def test_a_function_that_calls_itself_is_refused() -> None:
    ring = [function("F", [call("G")]), function("G", [call("F")])]
    with pytest.raises(BundleError, match="functions within each other"):
        check_graph("dit", model([call("F", "x", "y")], ring).SerializeToString(), [])


def endless_loop() -> NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [4]),
        ],
    )
    return helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)


@pytest.mark.parametrize(
    "harmful",
    [
        model([endless_loop()]),
        model([call("F", "x", "y")], [function("F", [endless_loop()])]),
        model([helper.make_node("If", ["c"], ["y"], then_branch=graph([endless_loop()]), else_branch=graph([NEG]))]),
        model([helper.make_node("Scan", ["x"], ["y"], body=graph([NEG]), num_scan_inputs=1)]),
        model([helper.make_node("Loop", ["x"], ["y"], domain="ai.onnx")]),
        model([helper.make_node("BeamSearch", ["x"], ["y"], domain="com.microsoft", decoder=graph([NEG]))]),
        # The loop is the function's, its body comes from the caller.
        model([helper.make_node("F", ["x"], ["y"], domain="own", body=graph([NEG]))], [function("F", [NEG])]),
    ],
)
def test_loops_are_refused_wherever_they_are(harmful: ModelProto) -> None:
    with pytest.raises(BundleError, match="has the loop '"):
        check_graph("dit", harmful.SerializeToString(), [])


def test_branches_nest_only_so_deep() -> None:
    with pytest.raises(BundleError, match="branches within each other"):
        check_graph("dit", model([branch(MAX_DEPTH + 1)]).SerializeToString(), [])


@pytest.mark.parametrize("name", ["/etc/hostname", "../graph.data", "other.data", "", "*/_ORT_MEM_ADDR_/*", "\x1b[2J"])
def test_weights_in_a_file_that_is_not_listed_are_refused(name: str) -> None:
    with pytest.raises(BundleError, match="which the manifest does not list as its data"):
        check_graph("dit", model([ADD], weights=[external(location=name)]).SerializeToString(), ["graph.data"])


def test_only_a_graphs_own_weights_lie_in_other_files() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=external())
    inner = helper.make_graph([ADD], "b", [], [Y], [external()])
    pair = AttributeProto(name="values", type=AttributeProto.TENSORS, tensors=[WEIGHT, external()])
    many = helper.make_node("Constant", [], ["w"])
    many.attribute.append(pair)
    sparse = model([ADD])
    sparse.graph.sparse_initializer.add(values=external("v"), indices=external("i"), dims=[4])
    for harmful in (
        model([constant, ADD]),
        model([many, ADD]),
        model([NEG], [function("F", [constant])]),
        model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]),
        sparse,
    ):
        with pytest.raises(BundleError, match=r"reads 'graph\.data'"):
            check_graph("dit", harmful.SerializeToString(), ["graph.data"])


def test_two_locations_of_one_tensor_are_refused() -> None:
    tensor = external()
    tensor.external_data.add(key="location", value="other.data")
    with pytest.raises(BundleError, match="does not say in which"):
        check_graph("dit", model([ADD], weights=[tensor]).SerializeToString(), ["graph.data"])


def test_an_operator_that_nobody_defines_is_refused() -> None:
    with pytest.raises(BundleError, match="has the operator 'own::F', which it does not define"):
        check_graph("dit", model([call("F")]).SerializeToString(), [])


def test_a_function_is_defined_once() -> None:
    twice = [function("F", [NEG]), function("F", [NEG] * 2)]
    with pytest.raises(BundleError, match="defines 'F' twice"):
        check_graph("dit", model([NEG], twice).SerializeToString(), [])


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\x3a\x7f", b"\x3a\x02\x3b\x3c", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xba\x00\x00"]
    + [b"\x3a\x80\x00", b"\x08\x07" * 3, b"\x3a\x04" + b"\x08\x00" * 2 + b"\x25"],
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="is no ONNX model"):
        check_graph("dit", content, [])


def test_a_file_of_nothing_but_parts_is_given_up() -> None:
    content = b"\x3a\x80\x80\x80\x08" + b"\x0a\x00" * (8 << 20)
    with pytest.raises(BundleError, match="too many parts"):
        check_graph("dit", content, [])
