import numpy as np
import torch
from helpers.bundles.graph_runs import exported, run
from helpers.bundles.small import LTX, SMALL, small_networks
from torch import nn

from rap_edge.export.capture import five_graphs as graphs
from rap_edge.models.vaes.ltx_blocks import PixelNorm


def test_an_epsilon_of_1e_8_survives_simplification() -> None:
    x = torch.zeros(1, 4, 1, 2, 2)
    model = exported(PixelNorm(), x)
    assert np.array_equal(run(model, {str(model.graph.inputs[0].name): x.numpy()})[0], x.numpy())


def test_arithmetic_that_does_nothing_is_still_dropped() -> None:
    class Idle(nn.Module):
        def forward(self, x):
            return (x + 0.0) * 1.0 - 2.0

    model = exported(Idle(), torch.ones(3))
    assert [node.op_type for node in model.graph] == ["Sub"]


def test_no_graph_has_an_operator_of_a_foreign_domain() -> None:
    for source in graphs.graph_sources(small_networks(SMALL, LTX)).values():
        model = graphs.capture(source, SMALL)
        assert {node.domain for node in model.graph} <= {"", "rap"}
        assert [value.name for value in model.graph.inputs] == [tensor.name for tensor in source.inputs]
        assert [value.name for value in model.graph.outputs] == [tensor.name for tensor in source.outputs]
