from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rap_edge.export.plans.choice import EngineChoice, choose_engines
from rap_edge.export.plans.profiles import PROFILES, configure_profile
from rap_edge.export.plans.progress import PhaseTree
from rap_edge.export.plans.truth.inspector import parse_inspection
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine import tensorrt_modules as tensorrt_module
from rap_edge.runtime.machine.cuda_driver import CudaDevice, CudaDriver

ADA = CudaDriver("13.0", (CudaDevice(0, "RTX 4090", "8.9", 24 << 30),), "")
BARE = CudaDriver(None, (), "no CUDA driver is installed")


def choose(
    backend: str = "tensorrt-rtx",
    target=None,
    profile=None,
    precision: Precision = Precision.FP16,
    driver=BARE,
    version="11.4.0.106",
) -> EngineChoice:
    module = SimpleNamespace(Builder=object, Runtime=object, __version__=version)
    return choose_engines(backend, target, profile, precision, load=lambda item: module, driver=lambda: driver)


def test_every_rtx_generation_from_ampere_on_is_the_default() -> None:
    assert choose().targets == choose().capabilities == ("8.6", "8.9", "12.0", "12.1")
    assert choose(precision=Precision.FP8).targets == ("8.9", "12.0", "12.1")


@pytest.mark.parametrize("text", ["75,86", "7.5, 8.6", "sm75 SM86", "75,86,75"])
def test_targets_are_read_in_the_usual_spellings(text: str) -> None:
    assert choose(target=text).targets == ("7.5", "8.6")


@pytest.mark.parametrize("text", ["90", "ada", "", ",", "86;89", "-1"])
def test_an_unknown_target_is_a_sentence(text: str) -> None:
    with pytest.raises(ExportError, match="choose among 75, 80, 86, 89, 120, 121 or current"):
        choose(target=text)


def test_current_asks_the_gpu_that_is_there() -> None:
    choice = choose(target="current", driver=ADA)
    assert (choice.targets, choice.capabilities) == (("current",), ("8.9",))
    with pytest.raises(ExportError, match="no CUDA driver is installed"):
        choose(target="current")


def test_fp32_is_refused_before_anything_slow(tmp_path) -> None:
    with pytest.raises(ExportError, match="--precision fp16"):
        choose(precision=Precision.FP32)


def test_a_builder_that_is_not_installed_is_a_sentence_with_the_command() -> None:
    for found in (None, SimpleNamespace(Runtime=object)):
        with pytest.raises(ExportError, match=r"pip install 'rap-edge\[tensorrt\]'"):
            choose_engines("tensorrt", None, None, "fp16", load=lambda item, found=found: found)


def test_on_a_jetson_tensorrt_comes_with_the_system(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tensorrt_module, "JETSON", tmp_path)
    with pytest.raises(ExportError, match=r"run apt-get install python3-libnvinfer, and .* --system-site-packages"):
        choose_engines("tensorrt", None, None, "fp16", load=lambda item: None)
    assert tensorrt_module.RTX.install == "pip install 'rap-edge[tensorrt-rtx]'"


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.13.3.9", "10.14.1.48"])
def test_a_tensorrt_that_cannot_read_the_graphs_is_refused_before_it_tries(version: str) -> None:
    with pytest.raises(ExportError, match=rf"TensorRT {version} cannot read .* install 10\.15 or later"):
        choose("tensorrt", driver=ADA, version=version)
    assert choose("tensorrt", driver=ADA, version="10.16.2.10").profile == "native"


def test_tensorrt_builds_for_the_gpu_that_is_there_by_profile(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native = choose("tensorrt", driver=ADA)
    assert (native.targets, native.capabilities, native.profile) == ((), ("8.9",), "native")
    assert native.file("dit") == "dit.tensorrt-native-sm89.plan"
    assert native.timing_cache == str(tmp_path / "rap-edge" / "tensorrt-11.4.0.106-sm89.timing")
    assert choose("tensorrt", profile="portable", driver=ADA).capabilities == ("8.0+",)
    for wrong in ({"target": "89"}, {"profile": "fast"}):
        with pytest.raises(ExportError):
            choose("tensorrt", driver=ADA, **wrong)
    with pytest.raises(ExportError, match="no CUDA driver"):
        choose("tensorrt")
    with pytest.raises(ExportError, match="--profile"):
        choose(profile="native")
    assert choose().file("dit") == "dit.plan"


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_use_names_that_the_real_module_has(name: str) -> None:
    module = pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")
    flags: list[object] = []
    config = SimpleNamespace(set_flag=flags.append)
    configure_profile(config, module, name)
    assert isinstance(config.hardware_compatibility_level, module.HardwareCompatibilityLevel)
    assert (module.BuilderFlag.EXCLUDE_LEAN_RUNTIME in flags) is PROFILES[name].any_version


def test_progress_follows_nested_phases_and_never_goes_back() -> None:
    tree = PhaseTree()
    tree.start("all", None, 4)
    tree.complete("all", 0)
    assert tree.fraction == 0.25
    tree.start("inner", "all", 2)
    tree.complete("inner", 0)
    assert tree.fraction == 0.375
    tree.finish("inner")
    assert tree.fraction == 0.5
    tree.start("stray", "unknown", 0)
    tree.complete("nobody", 3)
    assert tree.fraction == 0.5
    tree.finish("all")
    assert tree.fraction == 1.0


def test_the_inspectors_layers_become_steps() -> None:
    text = """{"Layers": [
        {"Name": "a", "LayerType": "gemm", "TacticName": "sm80_xmma", "Metadata": "[ONNX Layer: m/MatMul_1]",
         "Inputs": [{"Format/Datatype": "Row major linear FP16 format"}, {"Format/Datatype": "Half"}]},
        {"Name": "b", "LayerType": "fusion", "TacticName": "_gemm_mha_v2_0x1", "Metadata": "[ONNX Layer: x]",
         "Inputs": [{"Format/Datatype": "Half"}, {"Format/Datatype": "Half"}, {"Format/Datatype": "Half"}]},
        {"Name": "c", "LayerType": "CaskConvolution", "Metadata": "[ONNX Layer: c/Conv_1]",
         "Inputs": [{"Format/Datatype": "Int8"}]}]}"""
    product, attention, convolution = parse_inspection(text)
    assert (product.product, product.operands, product.layers) == (True, ("float16", "float16"), ("m/MatMul_1",))
    assert attention.fused_attention
    assert convolution.operands == ("int8", "int8")
    assert parse_inspection('{"Layers": ["a", "b"]}') is None
