"""Q/DQ around layers, and what the CPU's 8-bit kernels need: numbers against plain arithmetic."""

import tempfile

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import count, exported, plain_session
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass
from torch import nn

from rap_edge.calibration.observe.layers import layers_of
from rap_edge.calibration.observe.ranges import Extent
from rap_edge.calibration.quantize.cpu_passes import absorb_bias, join_bias, pixels_from_quantized, silu_in_bytes
from rap_edge.calibration.quantize.qdq import numbers_of, quantize, quantize_weight
from rap_edge.calibration.quantize.smoothing import smooth, smoothing_factors
from rap_edge.calibration.targets import (
    CPU_16BIT_SUMS,
    TENSORRT_FP8,
    TENSORRT_INT8,
    Target,
    choose_target,
    sums_saturate,
)
from rap_edge.export.passes.channels_last_shuffle import channels_last_shuffle
from rap_edge.export.passes.pixel_rounding import pixel_rounding
from rap_edge.export.passes.reordered_bias import reordered_bias
from rap_edge.export.passes.token_rows import token_rows
from rap_edge.export.precision.to_fp16 import to_fp16
from rap_edge.runtime.errors import CalibrationError


class Talker(nn.Module):
    """An attention layer between two linear ones, on [1, 6, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.o = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        q, k = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.q, self.k))
        return self.o(F.scaled_dot_product_attention(q, k, k).transpose(1, 2).flatten(2))


def lifted(module: nn.Module, x: torch.Tensor) -> ir.Model:
    model = exported(module, x)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ShapeInferencePass()(model)
    return model


def extent(values: np.ndarray) -> Extent:
    return Extent(float(min(values.min(), 0.0)), float(max(values.max(), 0.0)))


def seen(model: ir.Model, x: np.ndarray) -> dict[str, Extent]:
    """What every float value spans for the input x."""
    probe = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    there = {value.name for value in probe.graph.outputs}
    values = [v for node in probe.graph for v in node.outputs if v.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)]
    probe.graph.outputs.extend(value for value in values if value.name not in there)
    session = plain_session(probe)
    name = session.get_inputs()[0].name
    results = session.run(None, {name: x})
    extents = {out.name: extent(result) for out, result in zip(session.get_outputs(), results, strict=True)}
    return extents | {name: extent(x)}


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """As `graph_runs.run`, with int8 left as it is: see `OnnxRuntimeEngine`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    content = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def only(model: ir.Model, op_type: str) -> ir.Node:
    (node,) = (node for node in model.graph if node.op_type == op_type)
    return node


@given(
    arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32)),
    st.sampled_from([0, 1]),
    st.sampled_from([64.0, 127.0]),
)
def test_a_quantised_weight_is_within_half_a_step_of_its_channel(weight, axis, limit) -> None:
    stored, scale = quantize_weight(weight, axis, "int8", limit)
    assert stored.dtype == np.int8
    assert np.abs(stored.astype(int)).max() <= limit
    step = scale.reshape([-1 if i == axis else 1 for i in range(2)])
    assert (np.abs(stored * step - weight) <= step * 0.5 * (1 + 1e-5)).all()


def test_layers_get_int8_per_channel_and_attention_and_biases_are_left_alone() -> None:
    x = torch.randn(1, 6, 16)
    module = Talker()
    model = lifted(module, x)
    layers = layers_of("dit", model)
    assert len(layers) == 3
    assert quantize(model, layers, seen(model, x.numpy()), TENSORRT_INT8) == 3
    # q and k read one quantised activation, o another one.
    assert count(model, "QuantizeLinear") == 2
    weights = [node for node in model.graph if node.op_type == "DequantizeLinear" and node.inputs[0].const_value]
    assert {str(node.inputs[0].dtype) for node in weights} == {"INT8"}
    assert all(node.inputs[1].const_value.shape == (16,) for node in weights)
    attention = only(model, "Attention")
    assert all(value.producer().op_type != "DequantizeLinear" for value in attention.inputs if value is not None)
    assert not any(value.dtype == ir.DataType.INT32 for value in model.graph.initializers.values())
    (got,) = run(model, {str(model.graph.inputs[0].name): x.numpy()})
    expected = module(x).detach().numpy()
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def in_8_bits(values: np.ndarray, target: Target) -> np.ndarray:
    """Activations as a layer reads them."""
    step, zero = numbers_of(extent(values), target)
    first = 0 if target.activation_dtype == "uint8" else -target.activation_limit
    return (np.clip(np.rint(values / max(step, 1e-30)) + zero, first, target.activation_limit) - zero) * step


@given(arrays(np.float64, 9, elements=st.floats(-100, 100, width=16, allow_subnormal=False)))
def test_unsigned_numbers_span_what_is_there_and_keep_zero(values: np.ndarray) -> None:
    values[0] = 0.0
    got = in_8_bits(values, CPU_16BIT_SUMS)
    # Zero on a whole number makes the step a little larger than the width's share.
    step = np.ptp(values) / 253
    assert got[0] == 0.0
    assert np.abs(got - values).max() <= 0.5 * step * (1 + 1e-9)


def test_a_one_sided_activation_gets_twice_the_numbers_on_the_cpu() -> None:
    values = F.silu(torch.linspace(-8.0, 8.0, 501)).numpy()
    errors = [np.square(in_8_bits(values, target) - values).mean() for target in (CPU_16BIT_SUMS, TENSORRT_INT8)]
    assert errors[0] < 0.35 * errors[1]


def test_products_of_two_activations_are_no_layers() -> None:
    class Product(nn.Module):
        def forward(self, x):
            return x @ x.transpose(1, 2)

    assert layers_of("dit", lifted(Product(), torch.randn(1, 4, 4))) == ()


def test_8_bits_inside_a_half_precision_graph_have_half_precision_scales() -> None:
    x = torch.randn(1, 6, 16)
    model = lifted(nn.Sequential(nn.Linear(16, 16)), x)
    extents = seen(model, x.numpy())
    to_fp16(model)
    # The cast to fp16 is a value of its own with the input's range.
    (layer,) = layers_of("dit", model)
    quantize(model, [layer], extents | {layer.input: extents[str(model.graph.inputs[0].name)]}, TENSORRT_INT8)
    node = only(model, "QuantizeLinear")
    assert node.inputs[0].dtype == node.inputs[1].dtype == ir.DataType.FLOAT16
    assert node.outputs[0].dtype == ir.DataType.INT8
    run(model, {str(model.graph.inputs[0].name): x.numpy()})


def test_scales_never_leave_the_normal_numbers_of_half_precision() -> None:
    x = torch.randn(1, 6, 16)
    model = lifted(nn.Linear(16, 16), x)
    to_fp16(model)
    (layer,) = layers_of("dit", model)
    quantize(model, [layer], {layer.input: Extent(0.0, 1e-6)}, TENSORRT_INT8)
    assert float(only(model, "QuantizeLinear").inputs[1].const_value.numpy()) >= np.finfo(np.float16).tiny


def test_fp8_has_e4m3_numbers_up_to_448() -> None:
    x = torch.randn(1, 6, 16)
    model = lifted(nn.Linear(16, 16), x)
    quantize(model, layers_of("dit", model), seen(model, x.numpy()), TENSORRT_FP8)
    assert only(model, "QuantizeLinear").outputs[0].dtype == ir.DataType.FLOAT8E4M3FN
    stored = next(
        v for v in model.graph.initializers.values() if v.name.endswith("weight_quantized") or "quantized" in v.name
    )
    assert np.abs(stored.const_value.numpy().astype(np.float32)).max() == 448.0


def test_the_cpu_target_is_exact_where_8_bit_sums_saturate() -> None:
    # All activations and weights are as large as they can be: the worst case of a sum of two products in 16 bits.
    target = choose_target("int8", "fp32")
    assert (target == CPU_16BIT_SUMS) == sums_saturate()
    layer = nn.Linear(64, 64, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    x = np.full((1, 64, 64), 2.0, np.float32)
    model = lifted(layer, torch.from_numpy(x))
    quantize(model, layers_of("dit", model), {str(model.graph.inputs[0].name): Extent(-2.0, 2.0)}, target)
    (got,) = run(model, {str(model.graph.inputs[0].name): x})
    np.testing.assert_allclose(got, 128.0, rtol=1e-6)


@pytest.mark.parametrize(("precision", "base"), [("fp8", "fp32"), ("int8", "int8")])
def test_impossible_targets_are_refused(precision: str, base: str) -> None:
    with pytest.raises(CalibrationError):
        choose_target(precision, base)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 12, 1)

    def forward(self, x):
        return F.pixel_shuffle(self.conv(x), 2)


def test_a_bias_behind_the_shuffle_goes_back_into_the_convolution() -> None:
    module, x = Shuffled(), torch.randn(2, 4, 3, 3)
    model = lifted(module, x)
    assert channels_last_shuffle(model) == reordered_bias(model) == 1
    before = count(model, "Add")
    assert absorb_bias(model) == 1
    assert count(model, "Add") == before - 1
    (got,) = run(model, {str(model.graph.inputs[0].name): x.numpy()})
    np.testing.assert_allclose(got, module(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("passes", "kernel"), [((), "MatMulIntegerToFloat"), ((token_rows,), "QGemm")], ids=["by token", "by row"]
)
def test_linear_layers_run_in_the_cpus_8_bit_kernel(passes, kernel) -> None:
    module = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32))
    x = torch.randn(1, 8, 32)
    model = lifted(module, x)
    for rewrite in passes:
        assert rewrite(model)
        ShapeInferencePass()(model)
    quantize(model, layers_of("dit", model), seen(model, x.numpy()), CPU_16BIT_SUMS)
    assert join_bias(model) == 2
    assert optimised_ops(model).count(kernel) == 2
    (got,) = run(model, {str(model.graph.inputs[0].name): x.numpy()})
    expected = module(x).detach().numpy()
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_convolutions_run_in_the_cpus_8_bit_kernel() -> None:
    module = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 8, 3, padding=1))
    x = torch.randn(1, 8, 6, 6)
    model = lifted(module, x)
    quantize(model, layers_of("vae_decoder", model), seen(model, x.numpy()), CPU_16BIT_SUMS)
    assert optimised_ops(model).count("QLinearConv") == 2
    assert silu_in_bytes(model) == 1
    assert {"QLinearSigmoid", "QLinearMul"} < set(optimised_ops(model))
    (got,) = run(model, {str(model.graph.inputs[0].name): x.numpy()})
    expected = module(x).detach().numpy()
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_a_convolution_right_behind_another_reads_what_that_one_gives_in_8_bits() -> None:
    module = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1))
    x = torch.randn(1, 8, 6, 6)
    model = lifted(module, x)
    quantize(model, layers_of("audio_encoder", model), seen(model, x.numpy()), CPU_16BIT_SUMS)
    # One for the first's input, one for each output.
    assert count(model, "QuantizeLinear") == 3
    assert optimised_ops(model).count("QLinearConv") == 2
    (got,) = run(model, {str(model.graph.inputs[0].name): x.numpy()})
    expected = module(x).detach().numpy()
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def optimised_ops(model: ir.Model) -> list[str]:
    """Operators of the graph that ONNX Runtime makes of it."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        options = ort.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = file.name, 3
        content = ir.serde.serialize_model(model).SerializeToString()
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(file.name).graph.node]


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=60.0)

    def forward(self, x):
        levels = self.conv(x).permute(0, 2, 3, 1)
        return levels.round().clamp(0.0, 255.0).to(torch.uint8), levels.abs().mean().reshape(1)


def test_pixels_come_out_of_the_quantised_convolution_without_rounding_twice() -> None:
    x = torch.randn(2, 4, 6, 6)
    model = lifted(Pixels(), x)
    assert pixel_rounding(model) == 1
    names = [value.name for value in model.graph.outputs]
    quantize(model, layers_of("vae_decoder", model), seen(model, x.numpy()), CPU_16BIT_SUMS)
    feeds = {str(model.graph.inputs[0].name): x.numpy()}
    assert pixels_from_quantized(model) == 1
    assert [value.name for value in model.graph.outputs] == names
    assert "Abs" not in {node.op_type for node in model.graph}
    # One for what the convolution reads, one for the pixels.
    assert [node.op_type for node in model.graph].count("QuantizeLinear") == 2
    frames, magnitude = run(model, feeds)
    expected = Pixels.forward(rounded(model, x), x)[0].numpy()
    assert np.abs(frames.astype(int) - expected).max() <= 1
    assert magnitude[0] == pytest.approx(frames.mean(), rel=1e-5)


def rounded(model: ir.Model, x: torch.Tensor) -> Pixels:
    """The module with the weights and inputs that the quantised graph holds."""
    module = Pixels()
    weight = next(n for n in model.graph if n.op_type == "DequantizeLinear" and n.inputs[0].const_value is not None)
    stored, scale = (weight.inputs[i].const_value.numpy().astype(np.float32) for i in (0, 1))
    quantizer = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    step, zero = (quantizer.inputs[i].const_value.numpy().item() for i in (1, 2))
    bias = next(node for node in model.graph if node.op_type == "Conv").inputs[2].const_value.numpy()
    with torch.no_grad():
        module.conv.weight.copy_(torch.from_numpy(stored * scale.reshape(-1, 1, 1, 1)))
        module.conv.bias.copy_(torch.from_numpy(bias))
    x.copy_((x / step).round().clamp(-zero, 255 - zero) * step)
    return module


@given(
    arrays(np.float32, 6, elements=st.floats(0, 100, width=32)),
    arrays(np.float32, 6, elements=st.floats(0, 9, width=32)),
)
def test_smoothing_factors_are_positive_and_bounded(activations, weights) -> None:
    factors = smoothing_factors(activations, weights)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()
    assert (factors <= 64).all()


@pytest.mark.parametrize("normed", [True, False])
def test_smoothing_changes_no_number_and_evens_the_channels_out(normed: bool) -> None:
    norm = nn.RMSNorm(8, elementwise_affine=True)
    nn.init.constant_(norm.weight, 1.0)
    with torch.no_grad():
        norm.weight[3] = 100.0
    module = nn.Sequential(norm if normed else nn.SiLU(), nn.Linear(8, 4))
    x = torch.randn(1, 5, 8)
    if not normed:
        x[..., 3] *= 100
    model = lifted(module, x)
    layers = layers_of("dit", model)
    probe = module[0](x).detach().abs().reshape(-1, 8).amax(0).numpy()
    spanned = extent(module[0](x).detach().numpy())
    result = smooth(model, layers, probe, spanned)
    assert result.extent.magnitude < probe.max() / 2
    assert result.folded == (normed and any(node.op_type == "RMSNormalization" for node in model.graph))
    (got,) = run(model, {str(model.graph.inputs[0].name): x.numpy()})
    np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("target", [TENSORRT_INT8, TENSORRT_FP8], ids=["int8", "fp8"])
def test_tensorrt_rtx_builds_a_plan_of_the_half_precision_graph_without_a_gpu(target) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    model = lifted(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)), torch.randn(1, 8, 64))
    to_fp16(model)
    layers = layers_of("dit", model)
    quantize(model, layers, {layer.input: Extent(-4.0, 4.0) for layer in layers}, target)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(ir.serde.serialize_model(model).SerializeToString()), str(parser.get_error(0))
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    assert kinds.count(trt.LayerType.QUANTIZE) == 2
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    assert builder.build_serialized_network(network, config) is not None
