"""Small ONNX graphs, written node by node, that TensorRT takes or should not take."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rap_edge.export.hybrid_attention.onnx_function import hybrid_attention_function
from rap_edge.export.plans.job import PlanJob
from rap_edge.export.plans.truth.claim import read_claim

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
AMPERE_ON = ("8.6", "8.9", "12.0", "12.1")


def save(folder: Path, name: str, nodes, inputs, outputs, constants=()) -> Path:
    """Inputs and outputs are (name, type, shape); constants are (name, array) or tensors."""
    tensors = [
        item if isinstance(item, onnx.TensorProto) else numpy_helper.from_array(item[1], item[0]) for item in constants
    ]
    ends = [[helper.make_tensor_value_info(*item) for item in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, name, *ends, tensors)
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)
    return path


def attention(folder: Path, kind: int = HALF, heads: int = 2, width: int = 64) -> Path:
    size = heads * width
    node = helper.make_node(
        "Attention", ["q", "k", "v"], ["o"], name="block/Attention_1", q_num_heads=heads, kv_num_heads=heads
    )
    inputs = [("q", kind, (1, 64, size)), ("k", kind, (1, 16, size)), ("v", kind, (1, 16, size))]
    return save(folder, "attend", [node], inputs, [("o", kind, (1, 64, size))])


def hybrid(folder: Path) -> Path:
    """RAP's hybrid attention with its definition."""
    node = helper.make_node(
        "HybridAttention",
        ["q", "k", "v", "k", "v"],
        ["o"],
        name="block/HybridAttention_1",
        domain="rap",
        alpha=0.4,
        num_heads=2,
        frames=4,
    )
    inputs = [("q", HALF, (1, 64, 128)), ("k", HALF, (1, 16, 128)), ("v", HALF, (1, 16, 128))]
    path = save(folder, "hybrid", [node], inputs, [("o", HALF, (1, 64, 128))])
    model = onnx.load(path)
    model.functions.append(hybrid_attention_function())
    model.opset_import.append(helper.make_opsetid("rap", 1))
    onnx.save(model, path)
    return path


def stealthy(folder: Path) -> Path:
    """fp16 at both ends and fp32 in between."""
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["up"], name="up/Cast_1", to=FLOAT),
        helper.make_node("MatMul", ["up", "w"], ["y"], name="hidden/MatMul_1"),
        helper.make_node("Cast", ["y"], ["o"], name="down/Cast_1", to=HALF),
    ]
    return save(folder, "stealth", nodes, [("x", HALF, (8, 64))], [("o", HALF, (8, 64))], [("w", weight)])


def quantised(folder: Path) -> Path:
    """An int8 product, an fp16 product and an int8 convolution."""
    rng = np.random.default_rng(0)
    half, zero = np.float16, np.zeros((), np.int8)
    constants = [
        ("s", np.array(0.02, half)),
        ("z", zero),
        ("w", rng.integers(-127, 127, (256, 128)).astype(np.int8)),
        ("ws", np.full(128, 0.01, half)),
        ("wz", np.zeros(128, np.int8)),
        ("c", rng.integers(-127, 127, (32, 16, 3, 3)).astype(np.int8)),
        ("cs", np.full(32, 0.01, half)),
        ("cz", np.zeros(32, np.int8)),
        ("m", rng.standard_normal((128, 64)).astype(half)),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="first/MatMul_1"),
        helper.make_node("Relu", ["y"], ["r"], name="first/Relu_1"),
        helper.make_node("MatMul", ["r", "m"], ["o"], name="second/MatMul_1"),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "s", "z"], ["pd"]),
        helper.make_node("DequantizeLinear", ["c", "cs", "cz"], ["cd"], axis=0),
        helper.make_node("Conv", ["pd", "cd"], ["q"], name="picture/Conv_1", pads=[1, 1, 1, 1]),
    ]
    inputs = [("x", HALF, (1, 320, 256)), ("p", HALF, (1, 16, 32, 32))]
    return save(
        folder, "quantised", nodes, inputs, [("o", HALF, (1, 320, 64)), ("q", HALF, (1, 32, 32, 32))], constants
    )


def fp8(folder: Path) -> Path:
    rng = np.random.default_rng(0)

    def eight(name: str, array: np.ndarray) -> onnx.TensorProto:
        raw = array.astype(ml_dtypes.float8_e4m3fn).tobytes()
        return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, array.shape, raw, raw=True)

    constants = [
        ("s", np.array(0.02, np.float16)),
        eight("z", np.zeros(())),
        eight("w", rng.standard_normal((256, 128))),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], name="first/MatMul_1"),
        helper.make_node("Relu", ["y"], ["o"], name="first/Relu_1"),
    ]
    return save(folder, "fp8", nodes, [("x", HALF, (1, 320, 256))], [("o", HALF, (1, 320, 128))], constants)


def row_product(folder: Path, rows: int = 1) -> Path:
    """A float32 product, by default of one row, which Turing has no kernel for, as in the timestep embedding."""
    weight = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["t", "w"], ["e"], name="time/Gemm_1", transB=1),
        helper.make_node("Sigmoid", ["e"], ["a"], name="time/Sigmoid_1"),
        helper.make_node("Cast", ["a"], ["o"], name="time/Cast_1", to=HALF),
    ]
    return save(folder, "row", nodes, [("t", FLOAT, (rows, 256))], [("o", HALF, (rows, 64))], [("w", weight)])


def job(path: Path, *, dtype: str = "float16", targets=AMPERE_ON, islands=()) -> PlanJob:
    """Build the graph with TensorRT-RTX as what it claims to be."""
    claim = read_claim(path.stem, path, dtype, islands)
    plan = path.with_suffix(".plan")
    return PlanJob("tensorrt_rtx", str(path), str(plan), claim, tuple(targets), "ahead-of-time")
