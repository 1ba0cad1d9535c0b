"""The fused hybrid attention as a quickly deployable plugin of TensorRT, compiled ahead of time.

TensorRT keeps the kernel's PTX in the plan, so the plan needs no library beside it. In: `tensorrt`, imported. Out: a
plugin in its registry that its ONNX parser finds for the nodes of `plugin_graph`. TensorRT asks for every tactic, here
the warps of a block, and takes the faster one.

Annotations are read by TensorRT when it registers a function, so they must not be postponed.
"""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.errors import ExportError, first_line

from .operator import DOMAIN, OP_TYPE
from .ptx import HEAD_DIMS, KERNEL, ROWS_PER_WARP, SHARED_BYTES_PER_CHANNEL, WARPS, attention_ptx, block_sizes

_TENSORS = 6  # query, key, value, full_key, full_value, output
_TYPES = {"HALF": ("FP16", "float16"), "BF16": ("BF16", "bfloat16")}


def register_hybrid_attention(module: Any, capability: str) -> None:
    """Register the plugin; once per process.

    Args:
        module: `tensorrt`.
        capability: compute capability of the oldest GPU that shall run the plan.

    Raises:
        EngineError: NVRTC is not installed or does not know the GPU.
        ExportError: this TensorRT has no such plugins, or others than 10.16 and 11.4.
    """
    # A failure inside TensorRT's calls would reach nobody.
    attention_ptx("float16", HEAD_DIMS[0], WARPS[0], capability)
    try:
        _register(import_module(f"{module.__name__}.plugin"), capability)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ExportError(
            f"{module.__name__} {module.__version__} takes no ahead-of-time plugins as 10.16 and 11.4 do "
            f"({first_line(error)}); install one of them for the fused attention."
        ) from error


def _register(plugin: Any, capability: str) -> None:
    identity = f"{DOMAIN}::{OP_TYPE}"

    @plugin.register(identity)  # type: ignore[untyped-decorator]
    def describe(
        query: plugin.TensorDesc,
        key: plugin.TensorDesc,
        value: plugin.TensorDesc,
        full_key: plugin.TensorDesc,
        full_value: plugin.TensorDesc,
        # Arrays of one item: TensorRT 10 cannot make a number of what its parser gives, which is such an array.
        num_heads: NDArray[np.int32],
        frames: NDArray[np.int32],
        alpha: NDArray[np.float32],
    ) -> plugin.TensorDesc:
        return query.like()

    @plugin.autotune(identity)  # type: ignore[untyped-decorator]
    def variants(query, key, value, full_key, full_value, outputs) -> list[plugin.AutoTuneCombination]:  # type: ignore[no-untyped-def]
        name, _ = _TYPES[query.dtype.name]
        return [plugin.AutoTuneCombination(", ".join([name] * _TENSORS), "LINEAR", list(block_sizes(capability)))]

    @plugin.aot_impl(identity)  # type: ignore[untyped-decorator]
    def implement(  # type: ignore[no-untyped-def]
        query, key, value, full_key, full_value, num_heads, frames, alpha, outputs, tactic
    ) -> tuple[str, str, plugin.KernelLaunchParams, plugin.SymIntExprs]:
        _, dtype = _TYPES[query.dtype.name]
        batch, query_rows, width = query.shape_expr
        heads, frame_count = int(num_heads[0]), int(frames[0])
        query_tokens = query_rows // frame_count
        head_dim = width.constant_value() // heads
        weight = np.float32(alpha[0])
        words = (
            frame_count,
            heads,
            query_tokens,
            key.shape_expr[1] // frame_count if weight > 0.0 else 0,
            full_key.shape_expr[1] if weight < 1.0 else 0,
            int(weight.view(np.int32)),
        )
        launch = plugin.KernelLaunchParams(
            grid_x=plugin.cdiv(query_tokens, ROWS_PER_WARP * tactic) * frame_count,
            grid_y=heads,
            grid_z=batch,
            block_x=32 * tactic,
            shared_mem=SHARED_BYTES_PER_CHANNEL * head_dim,
        )
        arguments = plugin.SymIntExprs.from_tuple([plugin.SymInt32(word) for word in words])
        ptx = attention_ptx(dtype, head_dim, tactic, capability)
        return KERNEL, ptx, launch, arguments
