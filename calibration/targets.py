"""What 8-bit numbers mean on a target: data, not code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.eight_bits import LARGEST_SAFE_WEIGHT
from rap_edge.runtime.errors import CalibrationError

INT8_LIMIT, UINT8_LIMIT, FP8_LIMIT = 127.0, 255.0, 448.0


@dataclass(frozen=True)
class Target:
    """How layers are quantised for one kind of machine.

    Attributes:
        name: in reports and the manifest.
        dtype: "int8" or "float8e4m3" of the weights.
        activation_dtype: as `dtype`, with zero at 0, or "uint8", with zero where the activation's range has it.
        base: precision of the bundle whose graphs carry the Q/DQ.
        activation_limit: largest quantised activation.
        weight_limit: largest magnitude of a quantised weight; 64 where the kernel adds two products of 8 bits in
            16 bits with saturation (AVX2's vpmaddubsw: 2 * 255 * 64 < 32767).
        quantize_outputs: whether a convolution's output needs Q/DQ, without which ONNX Runtime has no kernel.
        measured: whether times are measured here; otherwise they come from the cost model.
    """

    name: str
    dtype: str
    activation_dtype: str
    base: Precision
    activation_limit: float
    weight_limit: float
    quantize_outputs: bool
    measured: bool


CPU = Target("cpu", "int8", "uint8", Precision.FP32, UINT8_LIMIT, INT8_LIMIT, quantize_outputs=True, measured=True)
CPU_16BIT_SUMS = Target(
    "cpu-avx2", "int8", "uint8", Precision.FP32, UINT8_LIMIT, LARGEST_SAFE_WEIGHT, quantize_outputs=True, measured=True
)
# TensorRT takes symmetric int8 (zero point 0) for activations and weights, and needs no Q/DQ behind a layer.
TENSORRT_INT8 = Target(
    "tensorrt", "int8", "int8", Precision.FP16, INT8_LIMIT, INT8_LIMIT, quantize_outputs=False, measured=False
)
TENSORRT_FP8 = Target(
    name="tensorrt-fp8",
    dtype="float8e4m3",
    activation_dtype="float8e4m3",
    base=Precision.FP16,
    activation_limit=FP8_LIMIT,
    weight_limit=FP8_LIMIT,
    quantize_outputs=False,
    measured=False,
)


def choose_target(precision: Precision, base: Precision) -> Target:
    """The target of an 8-bit bundle that is made from one in `base`: CPUs for fp32, TensorRT for fp16.

    Raises:
        CalibrationError: there is no such combination.
    """
    if base == Precision.FP16 and precision in (Precision.INT8, Precision.FP8):
        return TENSORRT_INT8 if precision == Precision.INT8 else TENSORRT_FP8
    if base == Precision.FP32 and precision == Precision.INT8:
        return CPU_16BIT_SUMS if sums_saturate() else CPU
    if base == Precision.FP32 and precision == Precision.FP8:
        raise CalibrationError("fp8 runs on GPUs only; pass a bundle that was exported with --precision fp16.")
    raise CalibrationError(f"A bundle in {base} cannot be calibrated to {precision}; pass one in fp32 or fp16.")


def sums_saturate() -> bool:
    """Whether this CPU's 8-bit kernels lose the sum of two large products, tried on a small product.

    x86 without VNNI multiplies and adds in 16 bits with saturation.
    """
    size = 64
    activations, weights = np.full((size, size), 255.0, np.float32), np.full((size, size), 127, np.int8)
    x = ir.val("x", ir.DataType.FLOAT, [size, size])
    scale, zero, weight = (
        ir.val(name, const_value=ir.tensor(array, name=name))
        for name, array in (
            ("scale", np.array(1.0, np.float32)),
            ("zero", np.array(0, np.uint8)),
            ("weight", weights),
        )
    )
    quantized = ir.node("QuantizeLinear", [x, scale, zero])
    restored = ir.node("DequantizeLinear", [quantized.outputs[0], scale, zero])
    restored_weight = ir.node("DequantizeLinear", [weight, scale])
    product = ir.node("MatMul", [restored.outputs[0], restored_weight.outputs[0]])
    output = product.outputs[0]
    output.name, output.dtype, output.shape = "y", ir.DataType.FLOAT, ir.Shape([size, size])
    graph = ir.Graph(
        [x],
        [output],
        nodes=[quantized, restored, restored_weight, product],
        initializers=[scale, zero, weight],
        opset_imports={"": 21},
        name="saturation",
    )
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": activations})[0]
    return bool(np.abs(found - 255.0 * 127.0 * size).max() > 0.5)
