"""The truth test, by trying to deceive it: real plans by TensorRT-RTX, without a GPU."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import exported
from helpers.bundles.handmade import FLOAT, attention, fp8, helper, job, quantised, row_product, save, stealthy
from torch import nn

from rap_edge.export.plans.job import PlanJob, PlanResult
from rap_edge.export.plans.process import build_plan
from rap_edge.export.plans.truth.check import check_network, check_steps
from rap_edge.export.plans.truth.program import parse_program, read_programs
from rap_edge.export.precision.to_fp16 import to_fp16
from rap_edge.models.vaes.ltx_blocks import CausalConv3d, PixelNorm
from rap_edge.runtime.errors import ExportError

trt = pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")


def build(what: PlanJob) -> PlanResult:
    return build_plan(what, lambda part: None)


def refused(what: PlanJob) -> str:
    with pytest.raises(ExportError) as error:
        build(what)
    assert not Path(what.plan).exists()
    return str(error.value)


def network_of(path: Path):
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    assert parser.parse_from_file(str(path))
    return network, parser, builder


def test_a_fused_attention_is_believed(tmp_path) -> None:
    result = build(job(attention(tmp_path)))
    assert result.evidence["attention"] == {"expected": 1, "fused": 1}
    assert result.evidence["products"] == {"float16": 1}
    assert result.bytes == (tmp_path / "attend.plan").stat().st_size > 10_000
    assert result.peak_memory_bytes > 1 << 20


def test_an_fp32_graph_that_claims_fp16_is_found_out(tmp_path) -> None:
    message = refused(job(attention(tmp_path, FLOAT)))
    assert "block/Attention_1" in message
    assert "float32 although" in message


def test_attention_in_honest_fp32_builds_but_is_not_fused(tmp_path) -> None:
    message = refused(job(attention(tmp_path, FLOAT), dtype="float32"))
    assert "'block/Attention_1' of 'attend' is not fused" in message
    assert "--precision fp16" in message


@pytest.mark.parametrize(("heads", "width"), [(1, 64), (2, 8), (2, 512)])
def test_attention_that_tensorrt_takes_apart_without_a_word_is_found_out(tmp_path, heads: int, width: int) -> None:
    message = refused(job(attention(tmp_path, heads=heads, width=width)))
    assert "'block/Attention_1' of 'attend' is not fused" in message
    assert "two heads or more" in message


def test_a_stealthy_cast_is_found_out_by_the_layer_behind_it(tmp_path) -> None:
    assert "'hidden/MatMul_1' of 'stealth' computes in float32" in refused(job(stealthy(tmp_path)))


def test_an_island_that_tensorrt_narrows_again_is_found_out(tmp_path) -> None:
    # TensorRT cancels the casts around a lone product and rounds its weights to fp16.
    message = refused(job(stealthy(tmp_path), islands=["hidden/MatMul_1"]))
    assert "'hidden/MatMul_1' of 'stealth' is an island" in message
    assert "runs as float16" in message


def test_an_island_that_stays_in_fp32_is_believed(tmp_path) -> None:
    result = build(job(row_product(tmp_path, 64), islands=["time/Gemm_1", "time/Sigmoid_1"]))
    assert result.evidence["products"] == {"float32": 1}


def test_quantised_layers_run_in_int8(tmp_path) -> None:
    what = job(quantised(tmp_path))
    assert what.claim.quantised == {"first/MatMul_1": "int8", "picture/Conv_1": "int8"}
    assert build(what).evidence["products"] == {"float16": 1, "int8": 2}


def test_a_quantised_convolution_that_runs_in_fp16_on_turing_is_named(tmp_path) -> None:
    message = refused(job(quantised(tmp_path), targets=("7.5", "8.6")))
    assert "'picture/Conv_1' of 'quantised' is quantised to int8 but runs as float16" in message
    assert "7.5" in message


def test_a_layer_that_is_said_to_be_int8_and_is_not_is_named(tmp_path) -> None:
    what = job(quantised(tmp_path))
    claim = dataclasses.replace(what.claim, quantised={**what.claim.quantised, "second/MatMul_1": "int8"})
    assert "'second/MatMul_1'" in refused(dataclasses.replace(what, claim=claim))


def test_fp8_runs_in_fp8_and_says_which_gpus_have_none(tmp_path) -> None:
    what = job(fp8(tmp_path), targets=("8.9", "12.0"))
    assert build(what).evidence["products"] == {"float8_e4m3fn": 1}
    Path(what.plan).unlink()
    message = refused(job(fp8(tmp_path), targets=("8.6", "8.9")))
    assert "fp8 needs compute capability 8.9" in message


def test_a_lost_attention_is_noticed(tmp_path) -> None:
    what = job(attention(tmp_path))
    assert "holds 2 attentions" in refused(
        dataclasses.replace(what, claim=dataclasses.replace(what.claim, attention=2))
    )


def test_a_decomposable_attention_is_refused(tmp_path) -> None:
    path = attention(tmp_path)
    network, _parser, _builder = network_of(path)
    assert check_network(network, trt, job(path).claim) == ("block/Attention_1",)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name == "ATTENTION_INPUT":
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True
    with pytest.raises(ExportError, match="decomposable"):
        check_network(network, trt, job(path).claim)


def test_an_engine_without_its_attention_kernel_is_not_believed(tmp_path) -> None:
    what = job(attention(tmp_path))
    build(what)
    steps = [step for program in read_programs(Path(what.plan)) for step in program.steps]
    names = ("block/Attention_1",)
    assert check_steps(steps, what.claim, names, "")["attention"]["fused"] == 1
    with pytest.raises(ExportError, match="not fused"):
        check_steps([step for step in steps if not step.fused_attention], what.claim, names, "")
    unread = [dataclasses.replace(step, operands=()) for step in steps]
    with pytest.raises(ExportError, match="unproved"):
        check_steps(unread, what.claim, names, "")


def test_turing_gets_its_row_products_as_sums(tmp_path) -> None:
    path = row_product(tmp_path)
    islands = ["time/Gemm_1", "time/Sigmoid_1"]
    build(job(path, targets=("7.5",), islands=islands))
    programs = read_programs(tmp_path / "row.plan")
    assert programs[0].accelerators == ("sm75",)
    assert not any(step.product for program in programs for step in program.steps)


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path) -> None:
    nodes = [helper.make_node("Foo", ["x"], ["y"], name="odd/Foo_1", domain="x.y")]
    path = save(tmp_path, "odd", nodes, [("x", FLOAT, (1, 4))], [("y", FLOAT, (1, 4))])
    message = refused(job(path))
    assert "Layer 'odd/Foo_1' of 'odd' cannot be read by tensorrt_rtx" in message
    assert "no such operator" in message


def test_a_normalisation_before_a_convolution_moves_the_activations_in_fp16_alone(tmp_path) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv3d(64, 64, 3, padding=1, bias=False), PixelNorm()
            self.second = CausalConv3d(64, 64, 3, causal=False)

        def forward(self, x):
            return self.second(F.silu(self.norm(self.first(x))))

    x = torch.rand(1, 64, 17, 32, 32)
    model = exported(Block(), x)
    ends = {str(value.name): "float16" for value in (*model.graph.inputs, *model.graph.outputs)}
    islands = [island.node for island in to_fp16(model, ends)]
    path = tmp_path / "block.onnx"
    onnx.save(ir.serde.serialize_model(model), path)
    traffic = build(job(path, islands=islands)).evidence["traffic_bytes"]
    # A change of layout at both ends, two convolutions, the sum of squares, and the scaling; an fp32 copy makes it 29.
    assert traffic / x.numel() < 4 + 4 + 4 + 4 + 2 + 4 + 3
    assert traffic / x.numel() > 20


def test_the_activations_that_are_told_are_the_regions_in_the_plan(tmp_path) -> None:
    told = build(job(quantised(tmp_path))).activation_bytes
    text = (tmp_path / "quantised.plan").read_bytes().decode("latin-1")
    regions = re.findall(r"\n  region = \{ name=\S+ size=(\d+) .*type=user place=accelerator", text)
    assert told == pytest.approx(sum(map(int, regions)), rel=0.01)
    assert told > 1000


def test_programs_are_read_with_types_layers_and_gpus() -> None:
    program = parse_program(
        "header {\n  version = 5\n  accelerators={sm89 sm120 }\ndescriptors {\n"
        '  tensor={ dims={ 2 3 } name="a" rank0=0 type=half }\n'
        '  tensor={ dims={ 2 5 } name="o" rank0=0 type=float }\n'
        '  sub_tensor={ base="a" dims={ 3 5 } name="b^deref" rank0=0 type=int8 }\n}\nmain {\n label bb1: \n'
        '  fully_connected={ name="f" output={"o" } input={"a" "b^deref" "c" } layers="[ONNX Layer: m/MatMul_1]\x1f'
        '[ONNX Layer: n | p/Hybrid_1 (Hybrid)]" }\n'
        '  function={ name=_gemm_mha_v2 args={ "a" } input_args={ "a" } layers="" }\n'
    )
    assert program.accelerators == ("sm89", "sm120")
    product, kernel = program.steps
    assert (product.product, product.operands) == (True, ("float16", "int8", ""))
    assert product.layers == ("m/MatMul_1", "n | p/Hybrid_1 (Hybrid)")
    assert kernel.fused_attention
    assert not kernel.product
    assert (product.traffic, kernel.traffic) == (12 + 15 + 40, 12)
    assert program.traffic == product.traffic + kernel.traffic


def test_what_a_step_of_free_size_moves_is_not_known() -> None:
    program = parse_program(
        'header {\n  accelerators={sm89 }\n  tensor={ dims={ 2 3 } name="a" type=half }\n'
        '  tensor={ dims={ %frames 5 } name="o" type=float }\nmain {\n'
        '  function={ name=f input_args={ "a" } output_args={ "o" } layers="" }\n'
        '  function={ name=g input_args={ "a" } layers="" }\n'
    )
    assert [step.traffic for step in program.steps] == [None, 12]
    assert program.traffic is None


def test_a_plan_without_programs_gives_none(tmp_path) -> None:
    (tmp_path / "x.plan").write_bytes(b"header {\n  version = 5\n" + b"\0" * 100)
    assert read_programs(tmp_path / "x.plan") == ()
