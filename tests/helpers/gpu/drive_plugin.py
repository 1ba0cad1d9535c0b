"""TensorRT's own plugin, driven as its builder would: from a node's attributes and shapes to a kernel and its launch.

Run with the real `tensorrt` module; prints JSON. The builder's expressions are numbers here, as shapes are static.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import tensorrt as trt
import tensorrt.plugin._tensor as tensor_module

from rap_edge.export.hybrid_attention.operator import DOMAIN, OP_TYPE
from rap_edge.export.hybrid_attention.plugin import register_hybrid_attention

OPERATIONS = {
    "SUM": lambda a, b: a + b,
    "PROD": lambda a, b: a * b,
    "SUB": lambda a, b: a - b,
    "FLOOR_DIV": lambda a, b: a // b,
    "CEIL_DIV": lambda a, b: -(-a // b),
}


class Number:
    """`IDimensionExpr`, which only the builder's library can make."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class Numbers:
    """`IExprBuilder`."""

    def __init__(self) -> None:
        self.made: list[Number] = []

    def constant(self, value: int) -> Number:
        self.made.append(Number(value))
        return self.made[-1]

    def operation(self, kind, left, right) -> Number:
        return self.constant(OPERATIONS[kind.name](left.value, right.value))


class Words(dict):
    """`ISymExprs`: the kernel's arguments between inputs and output."""

    nbSymExprs = 0  # noqa: N815


def described(dtype, shape):
    """What the builder tells of one tensor."""
    desc = trt.DynamicPluginTensorDesc()
    desc.desc.dims, desc.desc.type, desc.desc.format = shape, dtype, trt.TensorFormat.LINEAR
    desc.min = desc.max = desc.opt = shape
    return desc


def main(case) -> dict:
    trt.IDimensionExpr, trt.DimsExprs = Number, lambda length: [None] * length
    tensor_module.SymExprImpl = lambda expression: expression._expr.value
    dtype = getattr(trt.DataType, case["dtype"])
    register_hybrid_attention(trt, case["capability"])
    # What TensorRT's ONNX parser does with a node of the plugin's name and namespace.
    creator = trt.get_plugin_registry().get_creator(OP_TYPE, "1", DOMAIN)
    # A field does not keep the array that it points to.
    whole = np.array([case["heads"], case["frames"]], np.int32)
    alpha = np.array([case["alpha"]], np.float32)
    fields = trt.PluginFieldCollection(
        [
            trt.PluginField("num_heads", whole[:1], trt.PluginFieldType.INT32),
            trt.PluginField("frames", whole[1:], trt.PluginFieldType.INT32),
            trt.PluginField("alpha", alpha, trt.PluginFieldType.FLOAT32),
        ]
    )
    plugin = creator.create_plugin(
        OP_TYPE, DOMAIN, fields, trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.STRICT_AOT
    )
    shapes = case["shapes"]
    types = plugin.get_output_data_types([dtype] * 5, [3] * 5)
    numbers = Numbers()
    outputs = plugin.get_output_shapes([[Number(size) for size in shape] for shape in shapes], [], numbers)
    tensors = [described(dtype, shape) for shape in (*shapes, shapes[0])]
    combinations = plugin.get_supported_format_combinations(tensors, 5)
    plugin.configure_plugin(tensors[:5], tensors[5:])
    kernels = []
    for tactic in plugin.get_valid_tactics():
        plugin.set_tactic(tactic)
        launch = SimpleNamespace()
        words = Words()
        plugin.get_launch_params(None, tensors, 5, launch, words, Numbers())
        name, ptx = plugin.get_kernel([t.desc for t in tensors[:5]], [t.desc for t in tensors[5:]])
        kernels.append(
            {
                "warps": tactic,
                "name": name,
                "ptx": ptx.decode(),
                "launch": vars(launch),
                "words": [words[index] for index in range(words.nbSymExprs)],
            }
        )
    return {
        "fields": [field.name for field in creator.field_names],
        "output": types[0].name,
        "shapes": len(outputs),
        "combinations": [desc.type.name for desc in combinations],
        "kernels": kernels,
    }


print(json.dumps(main(json.loads(sys.argv[1]))))
