"""What the passes for GPUs do to the kernels of a real plan by TensorRT-RTX, built without a GPU."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.bundles.attention_modules import Rotated
from helpers.bundles.graph_runs import lifted
from helpers.bundles.handmade import job
from onnx_ir.passes.common import ShapeInferencePass

from rap_edge.export.passes.registry import choose_passes
from rap_edge.export.plans.process import build_plan
from rap_edge.export.plans.truth.program import Step, read_programs
from rap_edge.export.precision.to_fp16 import to_fp16

TOKENS, WIDTH = 160, 256
ACTIVATIONS = 2 * TOKENS * WIDTH  # bytes of fp16 tokens
WEIGHTS = 2 * WIDTH * WIDTH

pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")


@pytest.fixture(scope="module")
def attention() -> onnx.ModelProto:
    return ir.to_proto(lifted(Rotated(2, WIDTH // 2, (5, 4, 8)), torch.randn(1, TOKENS, WIDTH)))


def kernels(proto: onnx.ModelProto, folder: Path, passes: Sequence[str] | None) -> list[Step]:
    """What the attention's plan launches."""
    model, path = ir.from_proto(proto), folder / "attention.onnx"
    for item in choose_passes(passes, "gpu"):
        ShapeInferencePass()(model)
        item.rewrite(model)
    ShapeInferencePass()(model)
    ends = {str(value.name): "float16" for value in (*model.graph.inputs, *model.graph.outputs)}
    islands = [island.node for island in to_fp16(model, ends)]
    ir.save(model, path)
    build_plan(job(path, targets=("8.9",), islands=islands), lambda part: None)
    program = next(p for p in read_programs(path.with_suffix(".plan")) if "*" not in p.accelerators)
    return [step for step in program.steps if step.traffic]


def traffic(steps: Sequence[Step]) -> int:
    return sum(step.traffic or 0 for step in steps)


def test_a_self_attention_is_eight_kernels_none_of_which_copies(attention, tmp_path) -> None:
    before, after = kernels(attention, tmp_path, ()), kernels(attention, tmp_path, None)
    assert (len(before), len(after)) == (9, 8)
    between = [step.kernel for step in after if not (step.product or "Fc" in step.kernel)]
    assert sum("Mean" in kernel for kernel in between) == sum("Div" in kernel for kernel in between) == 2
    assert [kernel for kernel in between if "Mean" not in kernel and "Div" not in kernel] == ["_gemm_mha_v2"]
    # Products of queries and keys, values, output; two norms that read twice and write once; the attention.
    tokens, tables = 3 + 2 + 2 + 2 * 3 + 4, 2 * 4 * TOKENS * WIDTH // 4 * 2
    assert traffic(after) == pytest.approx(tokens * ACTIVATIONS + 4 * WEIGHTS + tables, rel=0.02)
    # Each norm wrote and read a float32 copy; values and result were copied; now two products read the same tokens.
    assert traffic(before) - traffic(after) == pytest.approx((2 * 3 + 2 + 2 - 1) * ACTIVATIONS, rel=0.02)
