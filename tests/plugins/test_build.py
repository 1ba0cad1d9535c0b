"""The plugins' build: what the compiler says about the kernels, the C library, the plugin in a real TensorRT registry.

TensorRT's headers are taken from the folder that TENSORRT_INCLUDE_DIR names.
"""

import ctypes
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from fused_attention import Case, Inputs, Params
from helpers.gpu.ptxas_report import KernelUse, find_nvcc, kernels
from helpers.places import ROOT

HEADERS = os.environ.get("TENSORRT_INCLUDE_DIR")
ARCHITECTURES = {"sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90a", "sm_100", "sm_120"}
# 65536 of an SM hold a block of eight warps or two of four.
MOST_REGISTERS = 255
# Stores and loads of a few words that are met once per tile of rows, none of them in the loop over keys.
MOST_SPILL_BYTES, MOST_STACK_BYTES = 96, 32

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_90'
ptxas info    : Function properties for _Z5firstv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 241 registers, used 1 barriers, 49152 bytes smem, 528 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_75'
ptxas info    : Function properties for _Z6secondv
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 128 registers, used 0 barriers, 16 bytes cumulative stack size
"""


def test_the_compilers_report_is_read() -> None:
    assert kernels(REPORT) == [
        KernelUse("_Z5firstv", "sm_90", 241, 49152, 0, 0),
        KernelUse("_Z6secondv", "sm_75", 128, 0, 16, 32),
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The build folder and the compiler's report."""
    beside = Path(sys.executable).parent
    nvcc, cmake = find_nvcc(), shutil.which("cmake", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if nvcc is None or cmake is None:
        pytest.skip("the plugins are built by cmake and nvcc: pip install '.[plugins]'")
    folder = tmp_path_factory.mktemp("plugins")
    configure = [cmake, "-S", str(ROOT), "-B", str(folder), f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    configure.append(f"-DTENSORRT_INCLUDE_DIR={HEADERS or ''}")
    targets = ["all", "exercise_plugin", "enqueue_plugin"] if HEADERS else ["all"]
    report = ""
    for command in (configure, [cmake, "--build", str(folder), "--target", *targets]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report += done.stdout + done.stderr
        assert done.returncode == 0, report
    return folder, report


@pytest.mark.slow
def test_every_kernel_stays_within_its_limits_on_every_architecture(built: tuple[Path, str]) -> None:
    seen = set()
    for use in kernels(built[1]):
        products, kind, head_dim, warps = re.search(
            r"(Warp|Warpgroup)ProductsINS_4tile\d+(Half|Bfloat16)ELi(\d+)EEELi(\d+)E", use.name
        ).groups()
        seen.add((use.architecture, products, kind, int(head_dim), int(warps)))
        assert use.spill_bytes <= MOST_SPILL_BYTES, use
        assert use.stack_bytes <= MOST_STACK_BYTES, use
        assert use.registers <= MOST_REGISTERS, use
        # What a block takes of shared memory, its launch says.
        assert use.shared_bytes == 0, use
    assert {architecture for architecture, *_ in seen} == ARCHITECTURES
    assert len(seen) == len(ARCHITECTURES) * 2 * 2 * 2 * 2


@pytest.mark.slow
def test_products_of_warpgroups_run_beside_the_warps_that_issued_them(built: tuple[Path, str]) -> None:
    assert "sm_90a" in built[1]
    # The compiler's word where it waits after every product, for want of certainty about a register.
    assert "serialized" not in built[1]


@pytest.mark.slow
def test_the_library_checks_calls_and_says_what_is_wrong(built: tuple[Path, str]) -> None:
    library = ctypes.CDLL(str(built[0] / "librap_hybrid_attention.so"))
    library.rap_status_message.restype = ctypes.c_char_p
    library.rap_hybrid_attention_check.argtypes = [ctypes.POINTER(Params)]
    assert library.rap_hybrid_attention_version() == 1
    inputs = Inputs(Case())
    params = inputs.params()
    assert library.rap_hybrid_attention_check(params) == 0
    params.head_dim = 80
    assert b"head_dim" in library.rap_status_message(library.rap_hybrid_attention_check(params))
    assert library.rap_hybrid_attention(ctypes.byref(params), None) == library.rap_hybrid_attention_check(params)


@pytest.mark.slow
def test_a_launch_without_a_gpu_is_a_status_and_no_crash(built: tuple[Path, str]) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    library = ctypes.CDLL(str(built[0] / "librap_hybrid_attention.so"))
    library.rap_status_message.restype = ctypes.c_char_p
    inputs = Inputs(Case())
    status = library.rap_hybrid_attention(ctypes.byref(inputs.params()), None)
    assert b"CUDA refused the launch" in library.rap_status_message(status)
    assert inputs.error() == float("inf")


@pytest.fixture(scope="module")
def exercised(built: tuple[Path, str]) -> Mapping[str, list[str]]:
    """What the plugin answered inside TensorRT's own registry, by name."""
    if not HEADERS:
        pytest.skip("TENSORRT_INCLUDE_DIR names no folder with TensorRT's headers")
    spec = importlib.util.find_spec("tensorrt_lean_libs")
    if spec is None:
        pytest.skip("the registry is tensorrt_lean's: pip install tensorrt_lean_cu13")
    (nvinfer,) = Path(spec.submodule_search_locations[0]).glob("libnvinfer_lean.so.*")
    command = [built[0] / "exercise_plugin", nvinfer, built[0] / "librap_tensorrt_plugin.so"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        said.setdefault(name, []).append(value)
    return said


def answers(exercised: Mapping[str, list[str]], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value[0] for name, value in exercised.items() if name.startswith(prefix)}


@pytest.mark.slow
def test_tensorrt_finds_the_creator_under_the_nodes_name(exercised: Mapping[str, list[str]]) -> None:
    assert (exercised["loaded"], exercised["found"], exercised["name"]) == (["1"], ["1"], ["HybridAttention"])
    assert exercised["kind"] == ["PLUGIN CREATOR_V3ONE"]
    int32, float32 = "5", "1"
    assert answers(exercised, "field.") == {"num_heads": int32, "frames": int32, "alpha": float32}
    assert exercised["found_after_unloading"] == ["0"]


@pytest.mark.slow
def test_the_creator_refuses_missing_mistyped_and_illegal_attributes(exercised: Mapping[str, list[str]]) -> None:
    refused = answers(exercised, "created.")
    assert len(refused) == 4
    assert set(refused.values()) == {"0"}


@pytest.mark.slow
def test_the_plugin_keeps_type_and_shape_of_the_query(exercised: Mapping[str, list[str]]) -> None:
    assert exercised["outputs"] == ["1"]
    assert (exercised["types"], exercised["types.bf16_stays"]) == (["0"], ["1"])
    assert (exercised["shapes"], exercised["shapes.as_query"]) == (["0"], ["1"])
    assert exercised["workspace"] == ["0"]


@pytest.mark.slow
def test_the_plugin_takes_linear_half_and_bf16_alone(exercised: Mapping[str, list[str]]) -> None:
    # How many of six tensors fit when the first has the named type; "mixed" is half followed by bf16.
    assert answers(exercised, "format.") == {"half": "6", "bf16": "6", "float": "0", "mixed": "1", "chw4": "0"}


@pytest.mark.slow
def test_shapes_that_the_kernel_cannot_run_are_refused(exercised: Mapping[str, list[str]]) -> None:
    possible = {name for name, answer in answers(exercised, "shape.").items() if answer == "1"}
    assert possible == {"rap", "separate"}
    assert answers(exercised, "configure.") == {"head_96": "0", "free_tokens": "1"}


@pytest.mark.slow
def test_a_saved_a_cloned_and_an_attached_plugin_have_the_same_attributes(exercised: Mapping[str, list[str]]) -> None:
    assert exercised["restored"] == ["1"]
    assert exercised["saved"] == ["12 11 0.25"] * 3


@pytest.mark.slow
def test_enqueueing_without_a_gpu_fails_without_a_crash(exercised: Mapping[str, list[str]]) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    assert exercised["enqueue.without_gpu"] != ["0"]


@pytest.mark.slow
def test_enqueue_on_a_gpu_agrees_with_float64(built: tuple[Path, str]) -> None:
    if not HEADERS:
        pytest.skip("TENSORRT_INCLUDE_DIR names no folder with TensorRT's headers")
    if not Path("/dev/nvidia0").exists():
        pytest.skip("this machine has no GPU")
    command = [built[0] / "enqueue_plugin", built[0] / "librap_tensorrt_plugin.so", secrets.randbelow(1 << 30)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = {name: float(error) for name, error in (line.split() for line in done.stdout.splitlines())}
    assert len(errors) == 6
    assert max(errors.values()) < 1.0, (command, errors)
