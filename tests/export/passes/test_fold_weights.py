import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import assert_same, lifted
from torch import nn

from rap_edge.export.passes.fold_weights import fold_weights


def test_a_weight_is_stored_as_it_is_used() -> None:
    class Patch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(256, 64, 1, 1, 1))  # larger than what torch's exporter folds

        def forward(self, x):
            return F.linear(x, self.weight.flatten(1))

    module, x = Patch(), torch.randn(1, 3, 64)
    model = lifted(module, x)
    assert fold_weights(model) > 0
    product = next(node for node in model.graph if node.op_type in ("MatMul", "Gemm"))
    assert product.inputs[1].const_value is not None
    assert_same(model, module, x)
