"""The rewriter of graphs: names that are new in graphs that were rewritten before."""

import io

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from rap_edge.export.rewriter import Rewriter


def doubled(model: ir.Model) -> ir.Model:
    graph = model.graph
    node = next(node for node in graph if node.op_type == "Relu")
    rewriter = Rewriter(graph, node)
    node.replace_input_with(0, rewriter.add("Mul", [node.inputs[0], rewriter.constant(np.float32([2.0]))]))
    return model


def reread(model: ir.Model) -> ir.Model:
    file = io.BytesIO(ir.to_proto(model).SerializeToString())
    return ir.from_proto(onnx.load(file))


def test_a_graph_that_was_written_and_read_is_rewritten_again() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    proto = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "g", *map(list, zip(ends)))
    )
    model = reread(doubled(reread(doubled(ir.from_proto(proto)))))
    written = ir.to_proto(model)
    onnx.checker.check_model(written, full_check=True)
    assert [node.op_type for node in written.graph.node] == ["Mul", "Mul", "Relu"]
    names = [*(item.name for item in written.graph.initializer), *(node.name for node in written.graph.node)]
    assert len(set(names)) == len(names)
