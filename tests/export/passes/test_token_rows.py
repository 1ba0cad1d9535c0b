import pytest
import torch
from helpers.bundles.graph_runs import assert_same, lifted
from helpers.bundles.small_modules import Tokens
from torch import nn

from rap_edge.export.passes.token_rows import token_rows


@pytest.mark.parametrize("batch", [1, 2])
def test_tokens_become_a_matrix_once(batch: int) -> None:
    module, x = Tokens(), torch.randn(batch, 5, 8)
    model = lifted(module, x)
    outputs = [value.name for value in model.graph.outputs]
    assert token_rows(model) >= 8 - (batch - 1)
    products = [node for node in model.graph if node.op_type == "MatMul"]
    assert [len(node.outputs[0].shape) for node in products] == [2, 2]
    assert all(node.inputs[1].const_value is not None for node in products)
    assert [value.name for value in model.graph.outputs] == outputs
    assert_same(model, module, x)


def test_norms_that_no_matrix_product_needs_stay_as_they_are() -> None:
    module, x = nn.LayerNorm(8), torch.randn(1, 5, 8)
    model = lifted(module, x)
    assert token_rows(model) == 0
    assert_same(model, module, x)
