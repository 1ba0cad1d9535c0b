import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.bundles.graph_runs import count, run
from torch import nn

from rap_edge.export.hybrid_attention.onnx_function import (
    SymbolicHybridAttention,
    carry_definition,
    hybrid_attention_function,
    symbolic_hybrid_attention,
)
from rap_edge.models.attention import HybridAttention, hybrid_attention

FRAMES, HEADS, DIM = 3, 2, 16
NAMES = ("query", "key", "value", "full_key", "full_value")


class Layer(nn.Module):
    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.attend = HybridAttention(alpha, HEADS)

    def forward(self, query, key, value, full_key, full_value):
        return self.attend(query, key, value, full_key, full_value, FRAMES)


def tensors(batch: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = (FRAMES * 4, FRAMES * 2, FRAMES * 2, FRAMES * 2, FRAMES * 2)
    return [torch.randn(batch, count, DIM, generator=generator) for count in tokens]


def captured(alpha: float, inputs: list[torch.Tensor]) -> ir.Model:
    layer = Layer(alpha).eval()
    with torch.no_grad(), symbolic_hybrid_attention(layer):
        program = torch.onnx.export(layer, tuple(inputs), dynamo=True, opset_version=23, verbose=False)
    carry_definition(program.model)
    return program.model


def as_op(alpha: float, dtype: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """A model of one node, whatever its alpha."""
    ends = [onnx.helper.make_tensor_value_info(name, dtype, [None, None, DIM]) for name in (*NAMES, "output")]
    node = onnx.helper.make_node(
        "HybridAttention", NAMES, ["output"], domain="rap", alpha=alpha, num_heads=HEADS, frames=FRAMES
    )
    graph = onnx.helper.make_graph([node], "one", ends[:-1], ends[-1:])
    opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("rap", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, functions=[hybrid_attention_function()], ir_version=11)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_a_mixed_layer_is_one_node_that_any_runtime_can_run(alpha: float, batch: int) -> None:
    inputs = tensors(batch)
    model = captured(alpha, inputs)
    assert [(node.domain, node.op_type) for node in model.graph] == [("rap", "HybridAttention")]
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    feeds = {value.name: tensor.numpy() for value, tensor in zip(model.graph.inputs, inputs, strict=True)}
    expected = hybrid_attention(*inputs, alpha, HEADS, FRAMES).numpy()
    assert np.abs(run(model, feeds)[0] - expected).max() < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_layer_with_one_branch_is_plain_attention(alpha: float) -> None:
    inputs = tensors(1)
    model = captured(alpha, inputs)
    assert count(model, "HybridAttention") == 0
    assert count(model, "Attention") == 1
    assert not model.functions
    feeds = {value.name: tensor.numpy() for value, tensor in zip(model.graph.inputs, inputs, strict=True)}
    used = {name: feeds[name] for name in feeds if any(value.name == name for value in model.graph.inputs)}
    assert np.abs(run(model, used)[0] - hybrid_attention(*inputs, alpha, HEADS, FRAMES).numpy()).max() < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_definition_equals_pytorch_for_every_weight(alpha: float, tmp_path) -> None:
    inputs = tensors(2, seed=1)
    onnx.save(as_op(alpha), tmp_path / "one.onnx")
    got = run(tmp_path / "one.onnx", {name: t.numpy() for name, t in zip(NAMES, inputs, strict=True)})[0]
    assert np.abs(got - hybrid_attention(*inputs, alpha, HEADS, FRAMES).numpy()).max() < 1e-5


def test_the_definition_takes_half_precision(tmp_path) -> None:
    inputs = tensors(1, seed=2)
    onnx.save(as_op(0.7, onnx.TensorProto.FLOAT16), tmp_path / "one.onnx")
    feeds = {name: t.half().numpy() for name, t in zip(NAMES, inputs, strict=True)}
    got = run(tmp_path / "one.onnx", feeds)[0]
    assert got.dtype == np.float16
    assert np.abs(got - hybrid_attention(*inputs, 0.7, HEADS, FRAMES).numpy()).max() < 5e-3


def test_capturing_leaves_the_network_as_it_was() -> None:
    layer = Layer(0.5)
    original = layer.attend
    with symbolic_hybrid_attention(layer):
        assert isinstance(layer.attend, SymbolicHybridAttention)
    assert layer.attend is original
