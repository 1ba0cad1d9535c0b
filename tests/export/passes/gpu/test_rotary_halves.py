import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.attention_modules import Rotated
from helpers.bundles.graph_runs import assert_same, lifted
from torch import nn

from rap_edge.export.passes.gpu.attention_norm import attention_norm
from rap_edge.export.passes.gpu.rotary_halves import rotary_halves
from rap_edge.models.attention import apply_rotary, rotary_table
from rap_edge.models.norms import RMSNorm32


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_rotated_together_lies_half_a_head_apart(batch: int) -> None:
    module, x = Rotated(), torch.randn(batch, 6, 36)
    model = lifted(module, x)
    assert rotary_halves(model) == 2
    picks = [node for node in model.graph if node.op_type == "Gather"]
    assert [node.inputs[0].shape.numpy() for node in picks] == [(batch, 6, 3, 2, 6)] * 4
    assert {node.attributes.get_int("axis", 0) for node in picks} == {3}
    assert_same(model, module, x)


def test_the_norms_of_what_was_reordered_are_rewritten_like_others() -> None:
    module, x = Rotated(), torch.randn(1, 6, 36)
    model = lifted(module, x)
    assert (rotary_halves(model), attention_norm(model)) == (2, 2)
    assert_same(model, module, x)


def test_channels_are_reordered_within_their_head() -> None:
    module, x = Rotated(), torch.randn(1, 6, 36)
    model = lifted(module, x)
    rotary_halves(model)
    gain = next(node for node in model.graph if node.op_type == "RMSNormalization").inputs[1].const_value.numpy()
    expected = module.inner.norm_q.weight.detach().unflatten(0, (3, 6, 2)).transpose(1, 2).flatten()
    assert np.array_equal(gain, expected)


class OneSided(nn.Module):
    """An attention that rotates its queries alone, or whose rotated queries are an output as well."""

    def __init__(self, *, keys: bool) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(24, 24), nn.Linear(24, 24)
        self.norm_q, self.norm_k, self.keys = RMSNorm32(24, 1e-6), RMSNorm32(24, 1e-6), keys

    def forward(self, x):
        table = rotary_table(12, (2, 1, 3), torch.device("cpu"))
        query, key = apply_rotary(self.norm_q(self.q(x)), *table, 2), self.norm_k(self.k(x))
        key = apply_rotary(key, *table, 2) if self.keys else key
        heads = (tensor.unflatten(-1, (2, -1)).transpose(1, 2) for tensor in (query, key, x))
        result = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return (result, query) if self.keys else result


@pytest.mark.parametrize("keys", [False, True])
def test_queries_without_rotated_keys_and_queries_that_others_read_are_left_alone(keys: bool) -> None:
    module, x = OneSided(keys=keys), torch.randn(1, 6, 24)
    model = lifted(module, x)
    assert rotary_halves(model) == 0
    assert_same(model, module, x)
