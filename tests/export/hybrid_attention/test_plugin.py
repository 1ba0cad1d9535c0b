"""The fused attention inside a plan: what TensorRT is told of it, and what the kernel does when launched that way."""

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from fused_attention import DTYPES, Case, Counts, Inputs
from helpers.bundles.handmade import hybrid
from helpers.gpu.emulated_attention import build
from helpers.gpu.ptxas_report import find_nvcc, kernels
from helpers.gpu.real_tensorrt import RealTensorRt

from rap_edge.export.hybrid_attention.plugin_graph import plugin_graph
from rap_edge.export.hybrid_attention.ptx import KERNEL, LANGUAGES, attention_ptx

NAMES = ("query", "key", "value", "full_key", "full_value", "output")
NANO = Case(head_dim=64, heads=4, frames=5, query_tokens=64, key_tokens=8, alpha=0.4)
RAP = Case(batch=2, heads=1, head_dim=128, frames=2, query_tokens=128, key_tokens=32, dtype=torch.bfloat16)
ODD = Case(batch=2, heads=3, head_dim=128, frames=3, query_tokens=19, key_tokens=37, full_tokens=45, alpha=0.7)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("g++") is None:
        pytest.skip("the emulator is compiled by g++, which is missing")
    return build(tmp_path_factory.mktemp("emulated"))


def told(tensorrt: RealTensorRt, case: Case) -> dict:
    """What TensorRT hears of a node with the case's sizes."""
    width = case.heads * case.head_dim
    rows = {name: case.frames * case.key_tokens for name in NAMES[1:3]}
    rows |= {name: case.full_tokens or rows["key"] for name in NAMES[3:5]} | {"query": case.frames * case.query_tokens}
    node = {
        "dtype": "HALF" if case.dtype == torch.float16 else "BF16",
        "capability": "8.0",
        "heads": case.heads,
        "frames": case.frames,
        "alpha": case.alpha,
        "shapes": [[case.batch, rows[name], width] for name in NAMES[:5]],
    }
    return json.loads(tensorrt.script("drive_plugin.py", json.dumps(node)))


@pytest.mark.parametrize(
    "case",
    [NANO, RAP, ODD, replace(NANO, alpha=1.0), replace(ODD, alpha=0.0)],
    ids=["nano", "rap", "odd sizes, separate branches", "window alone", "full alone"],
)
def test_launched_as_tensorrt_is_told_the_kernel_agrees_with_two_attentions_in_float64(
    tensorrt, emulated, case
) -> None:
    answer = told(tensorrt, case)
    assert answer["fields"] == ["num_heads", "frames", "alpha"]
    assert set(answer["combinations"]) == {answer["output"]} == {"HALF" if case.dtype == torch.float16 else "BF16"}
    assert sorted(kernel["warps"] for kernel in answer["kernels"]) == [4, 8]
    for kernel in answer["kernels"]:
        launch = kernel["launch"]
        assert launch["block_x"] == 32 * kernel["warps"]
        assert (launch["block_y"], launch["block_z"], launch["shared_mem"]) == (1, 1, 384 * case.head_dim)
        inputs = Inputs(case)
        tensors = {name: view.contiguous() for name, view in inputs.views.items()}
        if not case.full_tokens:
            tensors |= {"full_key": tensors["key"], "full_value": tensors["value"]}
        complaint = emulated.emulate_in_plan(
            (ctypes.c_void_p * 6)(*(tensors[name].data_ptr() for name in NAMES)),
            (ctypes.c_int32 * 6)(*kernel["words"]),
            DTYPES[case.dtype],
            case.head_dim,
            kernel["warps"],
            (ctypes.c_uint32 * 3)(*(launch[f"grid_{axis}"] for axis in "xyz")),
            ctypes.c_uint64(launch["shared_mem"]),
            ctypes.byref(Counts()),
        )
        assert complaint == b""
        inputs.views["output"].copy_(tensors["output"])
        assert inputs.error() < 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("warps", [4, 8])
def test_the_kernel_takes_its_arguments_in_tensorrts_order(dtype: str, head_dim: int, warps: int) -> None:
    ptx = attention_ptx(dtype, head_dim, warps, "8.0")
    assert re.search(r"^\.target sm_80$", ptx, re.MULTILINE)
    (name, arguments), *others = re.findall(r"\.entry (\w+)\((.*?)\)", ptx, re.DOTALL)
    assert (name, others) == (KERNEL, [])
    # Five tensors, the words, the output.
    assert re.findall(r"\.param \.(\w+)", arguments) == ["u64"] * 5 + ["u32"] * 6 + ["u64"]
    # Arguments in local memory would be read in every tile.
    assert ".local" not in ptx


def assembled(folder: Path, ptx: str, capability: str) -> subprocess.CompletedProcess[str]:
    if (nvcc := find_nvcc()) is None:
        pytest.skip("the assembler is beside nvcc: pip install '.[plugins]'")
    (folder / "kernel.ptx").write_text(ptx)
    command = [str(Path(nvcc).with_name("ptxas")), "-v", f"-arch=sm_{capability.replace('.', '')}", "kernel.ptx"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("capability", LANGUAGES)
def test_the_kernel_is_in_the_oldest_language_that_its_gpu_has(tmp_path: Path, capability: str) -> None:
    dtype = "float16" if capability == "7.5" else "bfloat16"
    ptx, language = attention_ptx(dtype, 64, 4, capability), LANGUAGES[capability]
    assert re.findall(r"^\.version (.*)$", ptx, re.MULTILINE) == [language]
    assert assembled(tmp_path, ptx, capability).returncode == 0
    older = f"{float(language) - 0.1:.1f}"
    assert assembled(tmp_path, ptx.replace(f".version {language}", f".version {older}"), capability).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["8.0", "8.9", "9.0", "12.0"])
@pytest.mark.parametrize(("head_dim", "warps"), [(64, 4), (128, 4), (128, 8)])
def test_the_kernel_spills_next_to_nothing(tmp_path: Path, capability: str, head_dim: int, warps: int) -> None:
    done = assembled(tmp_path, attention_ptx("float16", head_dim, warps, capability), capability)
    assert done.returncode == 0, done.stderr
    (use,) = kernels(done.stdout + done.stderr)
    assert use.name == KERNEL
    # A word or two outside of the loop over keys.
    assert use.spill_bytes <= 16
    assert use.stack_bytes <= 8


def test_a_turing_gpu_gets_the_products_that_it_has() -> None:
    assert "m16n8k8" in attention_ptx("float16", 128, 4, "7.5")


def test_a_graph_for_plugins_loses_the_definition_and_nothing_else(tmp_path: Path) -> None:
    model = onnx.load(hybrid(tmp_path))
    changed = onnx.load_model_from_string(plugin_graph(tmp_path / "hybrid.onnx"))
    assert len(model.functions) == 1
    assert len(changed.functions) == 0
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in changed.graph.node[0].attribute}
    assert attributes.pop("alpha") == pytest.approx(0.4)
    assert attributes == {"num_heads": 2, "frames": 4, "plugin_namespace": b"rap", "aot": 1}
    assert changed.graph.node[0].input == model.graph.node[0].input
    assert onnx.load(tmp_path / "hybrid.onnx") == model
