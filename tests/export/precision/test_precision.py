import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import count, exported, run, run_strictly
from torch import nn

from rap_edge.export.precision.rules import RULES
from rap_edge.export.precision.to_fp16 import to_fp16
from rap_edge.models.norms import LayerNorm32
from rap_edge.models.vaes.ltx_blocks import PixelNorm
from rap_edge.runtime.errors import ExportError


def input_name(model: ir.Model) -> str:
    return str(model.graph.inputs[0].name)


class Normalised(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 4, 1, bias=False)
        nn.init.constant_(self.conv.weight, scale)
        self.norm = PixelNorm()

    def forward(self, x):
        return self.norm(self.conv(x))


def test_pixel_norm_of_large_activations_does_not_overflow() -> None:
    module = Normalised(scale=1000.0)
    x = torch.rand(1, 4, 2, 3, 3) + 0.5  # activations of some thousands: their squares pass 65504
    model = exported(module, x)
    islands = to_fp16(model)
    assert {island.rule for island in islands} == {"norm-reduction"}
    got = run_strictly(model, {input_name(model): x.numpy()})[0]
    assert np.isfinite(got).all()
    assert np.abs(got - module(x).detach().numpy()).max() < 2e-3


def test_a_normalisation_takes_no_fp32_copy_of_the_activations_along() -> None:
    model = exported(Normalised(), torch.rand(1, 4, 2, 3, 3))
    to_fp16(model)
    for node in model.graph:
        if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT and node.outputs[0].shape[1] != 1:
            readers = {reader.op_type for reader in node.outputs[0].consumers()}
            assert readers <= {"Mul"}, node.name  # the square, both of whose factors it is
            assert all(reader.inputs[0] is reader.inputs[1] for reader in node.outputs[0].consumers())


@pytest.mark.parametrize(("eps", "kept"), [(1e-8, 0), (1e-12, 1)])
def test_a_root_that_may_leave_fp16_meets_the_activations_in_fp32(eps: float, kept: int) -> None:
    class Norm(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt((x * x).mean(dim=1, keepdim=True) + eps)

    model = exported(Norm(), torch.rand(1, 4, 8))
    to_fp16(model)
    products = [node for node in model.graph if node.op_type == "Mul" and node.inputs[0] is not node.inputs[1]]
    assert [node.inputs[0].dtype == ir.DataType.FLOAT for node in products] == [bool(kept)]


def test_without_the_rule_it_would_overflow() -> None:
    x = torch.rand(1, 4, 2, 3, 3) + 0.5
    model = exported(Normalised(scale=1000.0), x)
    to_fp16(model, rules=[rule for rule in RULES if rule.name == "pixel-conversion"])
    with np.errstate(over="ignore"):
        assert np.abs(run_strictly(model, {input_name(model): x.numpy()})[0]).max() == 0.0  # divided by infinity


def test_attention_and_products_are_in_half_precision_and_normalisations_are_not() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = LayerNorm32(16), nn.Linear(16, 16)

        def forward(self, x):
            heads = self.linear(self.norm(x)).unflatten(-1, (2, 8)).transpose(1, 2)
            return x + F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)

    x = torch.randn(1, 5, 16)
    module = Layer()
    model = exported(module, x)
    islands = to_fp16(model)
    assert [island.rule for island in islands] == ["norm-reduction"]
    for node in model.graph:
        half = node.inputs[0].dtype == ir.DataType.FLOAT16
        if node.op_type in ("Attention", "MatMul", "Gemm"):
            assert half, node.name
        if node.op_type == "LayerNormalization":
            assert not half
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert np.abs(run(model, {input_name(model): x.numpy()})[0] - module(x).detach().numpy()).max() < 1e-2


def test_a_value_is_cast_once_for_all_its_readers() -> None:
    class Fan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            return sum(layer(x) for layer in self.layers)

    model = exported(Fan(), torch.randn(2, 8))
    to_fp16(model)
    assert count(model, "Cast") == 2  # one in, one out


def test_what_depends_on_the_timestep_alone_stays_in_fp32() -> None:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time, self.linear = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x, timestep):
            angles = timestep.unsqueeze(1) * torch.tensor([1.0, 0.1])
            return self.linear(x) * self.time(torch.cat((angles.cos(), angles.sin()), 1))

    module, x = Timed(), torch.randn(3, 8)
    model = exported(module, x, torch.tensor([0.0]))
    islands = to_fp16(model)
    assert {"timestep-embedding"} <= {island.rule for island in islands}
    for t in (833.33, 937.5, 999.4):
        feeds = {str(model.graph.inputs[0].name): x.numpy(), "timestep": np.array([t], np.float32)}
        expected = module(x, torch.tensor([t])).detach().numpy()
        assert np.abs(run(model, feeds)[0] - expected).max() < 1e-2


def test_constants_that_half_precision_cannot_hold_keep_their_node_in_fp32() -> None:
    class Wide(nn.Module):
        def forward(self, x):
            return (x * 1e6) * 1e-9 + x

    x = torch.rand(4)
    model = exported(Wide(), x)
    assert {"constant-range"} == {island.rule for island in to_fp16(model)}
    assert np.abs(run(model, {input_name(model): x.numpy()})[0] - Wide()(x).numpy()).max() < 1e-3


def test_chosen_inputs_and_outputs_are_half_and_the_others_fp32() -> None:
    model = exported(nn.Linear(4, 4), torch.randn(2, 4))
    output = str(model.graph.outputs[0].name)
    to_fp16(model, {output: "float16"})
    assert model.graph.inputs[0].dtype == ir.DataType.FLOAT
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT16


def test_a_weight_that_is_not_finite_is_named() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    model = exported(layer, torch.randn(2, 4))
    with pytest.raises(ExportError, match="weight"):
        to_fp16(model)
