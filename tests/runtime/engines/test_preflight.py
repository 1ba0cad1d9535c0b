"""Every fact of the pre-flight fails once, with the command that mends it, on a machine without a GPU."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest
from helpers.bundles.planned import FITTING, VERSION, folder
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, graph_hash
from rap_edge.runtime.checks.needs import SeveralNeedsError, require
from rap_edge.runtime.cli import run as cli
from rap_edge.runtime.engines.engine_set import set_needs
from rap_edge.runtime.engines.preflight import Machine, check_engine, covers, platform_name, this_machine
from rap_edge.runtime.errors import BundleError, PreflightError
from rap_edge.runtime.loading import load_engines
from rap_edge.runtime.machine.cuda_driver import CudaDevice, CudaDriver, query_driver
from rap_edge.runtime.machine.tensorrt_modules import LEAN, RTX, TENSORRT, rtx_against

__all__ = ["folder"]

HOPPER = CudaDriver("13.0", (CudaDevice(0, "H100", "9.0", 80 << 30),), "")


def check(folder: Path, machine: Machine = FITTING, **changes):
    bundle = Bundle.open(folder)
    engine = dataclasses.replace(bundle.manifest.engines["dit"][0], **changes)
    return check_engine(bundle, "dit", engine, machine)


def refused(folder: Path, machine: Machine = FITTING, **changes) -> str:
    with pytest.raises(PreflightError) as error:
        check(folder, machine, **changes)
    assert str(error.value).startswith("The engine 'dit.plan' ")
    return str(error.value)


def test_an_engine_passes_where_every_fact_is_right(folder) -> None:
    assert check(folder) == RTX


def test_the_manifest_keeps_what_an_engine_was_built_from(folder) -> None:
    engine = Bundle.open(folder).manifest.engines["dit"][0]
    assert engine.graph_sha256 == graph_hash(
        Bundle.open(folder).manifest.files, Bundle.open(folder).manifest.graphs["dit"]
    )
    data = json.loads((folder / MANIFEST_NAME).read_text())
    data["engines"]["dit"][0]["graph_sha256"] = "none"
    (folder / MANIFEST_NAME).write_text(json.dumps(data))
    with pytest.raises(BundleError, match="graph_sha256"):
        Bundle.open(folder)


def test_a_truncated_plan(folder) -> None:
    (folder / "dit.plan").write_bytes(b"plan")
    message = refused(folder)
    assert "is damaged ('dit.plan' has 4 bytes instead of 11)" in message
    assert f"rap-export --bundle {folder} --engine tensorrt-rtx" in message


def test_a_changed_plan(folder) -> None:
    (folder / "dit.plan").write_bytes(b"plan of dIt")
    check(folder)
    with pytest.raises(PreflightError, match=r"'dit\.plan' is damaged \('dit\.plan' has been changed"):
        load_engines(Bundle.open(folder), "dit.plan", machine=FITTING)
    loaded = load_engines(Bundle.open(folder), "dit.plan", fallback=True, threads=1, machine=FITTING)
    assert loaded.notes[0].startswith("Fell back to ONNX Runtime: The engine 'dit.plan' is damaged")


def test_a_graph_that_was_changed_on_disk(folder) -> None:
    (folder / "dit.onnx").write_bytes(b"x")
    assert "belongs to a graph that is damaged" in refused(folder)


def test_a_graph_that_was_exported_again_since(folder) -> None:
    message = refused(folder, graph_sha256="0" * 64)
    assert "was built from another 'dit.onnx'" in message
    assert f"rap-export --bundle {folder} --engine tensorrt-rtx" in message


def test_another_platform(folder) -> None:
    message = refused(folder, platform="windows-x86_64")
    assert "built for windows-x86_64 and this is linux-x86_64" in message


def test_a_module_that_is_not_installed(folder) -> None:
    message = refused(folder, dataclasses.replace(FITTING, versions={}))
    assert "needs the module 'tensorrt_rtx'" in message
    assert "pip install 'rap-edge[tensorrt-rtx]'" in message


def test_a_backend_from_the_future(folder) -> None:
    assert "upgrade rap-edge" in refused(folder, backend="tensorrt-next")


def test_another_version(folder) -> None:
    message = refused(folder, version="1.6.0.1")
    assert f"built by tensorrt-rtx 1.6.0.1 and {VERSION} is installed" in message


def test_no_gpu(folder) -> None:
    bare = dataclasses.replace(FITTING, driver=CudaDriver(None, (), "no CUDA driver is installed"))
    message = refused(folder, bare)
    assert "needs an NVIDIA GPU and no CUDA driver is installed" in message
    assert f"rap-run --bundle {folder}" in message


def test_a_driver_that_is_too_old(folder) -> None:
    old = CudaDriver("12.8", FITTING.driver.devices, "")
    message = refused(folder, dataclasses.replace(FITTING, driver=old))
    assert "needs a driver for CUDA 13.0 and the one here is for CUDA 12.8; update the NVIDIA driver" in message


def test_another_gpu_gets_the_target_to_build_for(folder) -> None:
    message = refused(folder, compute_capabilities=("12.0",))
    assert "was built for compute capability 12.0 and the RTX 4090 here has 8.9" in message
    assert f"'rap-export --bundle {folder} --engine tensorrt-rtx --target 89'" in message


def test_of_a_gpu_that_it_does_not_list_tensorrt_rtx_is_asked_itself(folder) -> None:
    asked = []

    def against(plan) -> str:
        asked.append(bytes(plan))
        return answer

    machine = dataclasses.replace(FITTING, driver=HOPPER, against=against)
    answer = "UNSUPPORTED_CC"
    message = refused(folder, machine)
    assert "the H100 here has 9.0, where TensorRT-RTX refuses it (UNSUPPORTED_CC)" in message
    assert f"rap-run --bundle {folder}" in message
    answer = ""
    assert check(folder, machine) == RTX
    assert asked == [b"plan of dit"] * 2
    # Of a GPU that its list has, the manifest knows.
    ampere = CudaDriver("13.0", (CudaDevice(0, "A100", "8.0", 80 << 30),), "")
    assert "build it for this GPU" in refused(folder, dataclasses.replace(machine, driver=ampere))
    assert len(asked) == 2


def test_a_changed_plan_is_not_shown_to_tensorrt_rtx(folder) -> None:
    (folder / "dit.plan").write_bytes(b"plan of d1t")
    assert "is damaged" in refused(folder, dataclasses.replace(FITTING, driver=HOPPER, against=lambda plan: ""))


def test_the_real_tensorrt_rtx_says_what_it_has_against_a_plan() -> None:
    pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")
    assert rtx_against(b"no plan at all")


def test_plans_of_tensorrt_proper_name_their_profile(folder) -> None:
    machine = dataclasses.replace(FITTING, driver=HOPPER, versions={"tensorrt": "11.4.0.106"})
    message = refused(folder, machine, backend="tensorrt", version="11.4.0.106", profile="same-capability")
    assert f"'rap-export --bundle {folder} --engine tensorrt --profile same-capability'" in message


def test_version_compatible_plans_run_in_later_minor_versions_and_in_the_lean_runtime(folder) -> None:
    lean = dataclasses.replace(FITTING, versions={"tensorrt_lean": "11.5.0.1"})
    compatible = {"backend": "tensorrt", "version": "11.4.0.106", "profile": "version-compatible"}
    assert check(folder, lean, **compatible) == LEAN
    both = dataclasses.replace(lean, versions={"tensorrt": "11.4.0.106", "tensorrt_lean": "11.5.0.1"})
    assert check(folder, both, **compatible) == TENSORRT
    assert "12.0.0" in refused(folder, dataclasses.replace(lean, versions={"tensorrt_lean": "12.0.0"}), **compatible)
    assert "11.3.0" in refused(folder, dataclasses.replace(lean, versions={"tensorrt_lean": "11.3.0"}), **compatible)
    native = compatible | {"profile": "native"}
    assert "needs the module 'tensorrt'" in refused(folder, lean, **native)


@pytest.mark.parametrize(
    ("built", "present", "fits"),
    [
        (("8.6", "8.9"), "8.9", True),
        (("8.6",), "8.9", False),
        (("8.0+",), "12.0", True),
        (("8.0+",), "7.5", False),
        (("8.0+",), "10.0", True),
        ((), "8.9", False),
    ],
)
def test_compute_capabilities_are_compared_as_numbers(built, present: str, fits: bool) -> None:
    assert covers(built, present) is fits


def test_every_plan_is_checked_before_the_first_is_loaded(folder) -> None:
    (folder / "vae_decoder.plan").write_bytes(b"")
    with pytest.raises(PreflightError, match=r"vae_decoder\.plan"):
        load_engines(Bundle.open(folder), "dit.plan", machine=FITTING)


def test_the_fallback_runs_in_onnx_runtime_and_says_why(folder) -> None:
    loaded = load_engines(Bundle.open(folder), "dit.plan", fallback=True, threads=1, machine=bare_machine())
    assert all(engine.backend.startswith("onnxruntime") for engine in loaded.engines.values())
    (note,) = loaded.notes
    assert note.startswith("Fell back to ONNX Runtime: The engine 'dit.plan' needs an NVIDIA GPU")


def bare_machine() -> Machine:
    return dataclasses.replace(FITTING, driver=CudaDriver(None, (), "no CUDA driver is installed"))


def test_a_run_is_told_everything_that_it_lacks_in_the_order_in_which_to_mend_it(folder) -> None:
    machine = dataclasses.replace(bare_machine(), versions={})
    with pytest.raises(SeveralNeedsError) as error:
        require(set_needs(Bundle.open(folder), "dit.plan", machine))
    first, *things = str(error.value).splitlines()
    assert first == "2 things are missing:"
    assert [re.search("NVIDIA GPU|tensorrt_rtx", thing).group() for thing in things] == ["NVIDIA GPU", "tensorrt_rtx"]
    require(set_needs(Bundle.open(folder), "dit.plan", FITTING))
    with pytest.raises(PreflightError, match="NVIDIA GPU"):
        require(set_needs(Bundle.open(folder), "dit.plan", bare_machine()))


def test_of_a_plan_that_has_not_been_built_everything_is_told_too(tmp_path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    bundle, engine = Bundle.containing(tmp_path / "bundle" / "dit.plan")
    machine = dataclasses.replace(bare_machine(), versions={})
    with pytest.raises(SeveralNeedsError) as error:
        require(set_needs(bundle, engine, machine))
    first, built, gpu, module = str(error.value).splitlines()
    assert first == "3 things are missing:"
    command = f"'rap-export --bundle {tmp_path / 'bundle'} --engine tensorrt-rtx'"
    assert built == f"  1. The engine 'dit.plan' has not been built; run {command}."
    assert "NVIDIA GPU" in gpu
    assert "tensorrt_rtx" in module
    with pytest.raises(PreflightError, match="has not been built"):
        load_engines(bundle, engine, machine=machine)
    (note,) = load_engines(bundle, engine, fallback=True, threads=1, machine=machine).notes
    assert note.startswith("Fell back to ONNX Runtime: The engine 'dit.plan' has not been built")


def test_graphs_without_a_plan_and_unknown_engines_are_named(folder) -> None:
    data = json.loads((folder / MANIFEST_NAME).read_text())
    del data["engines"]["conditioner"]
    (folder / MANIFEST_NAME).write_text(json.dumps(data))
    bundle = Bundle.open(folder)
    with pytest.raises(PreflightError, match=r"'conditioner' has no plan from the build of 'dit\.plan'"):
        load_engines(bundle, "dit.plan", machine=FITTING)
    with pytest.raises(PreflightError, match="no plans of 'tensorrt'"):
        load_engines(bundle, "tensorrt", machine=FITTING)
    with pytest.raises(BundleError, match="choose"):
        load_engines(bundle, "portrait.png", machine=FITTING)
    assert not load_engines(bundle, "dit.onnx", threads=1).notes


def test_the_command_line_says_the_fact_and_falls_back_when_asked(folder, tmp_path, capsys, monkeypatch) -> None:
    from helpers.media.waves import speech, write_wav

    monkeypatch.setattr("rap_edge.runtime.engines.backend.this_machine", bare_machine)
    audio = write_wav(str(tmp_path / "talk.wav"), speech(3.0))
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    common = ["--engine", str(folder / "dit.plan"), "--audio", audio, "-o", str(out), "--threads", "1"]
    assert cli.main(common) == 2
    assert "rap-run: The engine 'dit.plan' needs an NVIDIA GPU" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*common, "--fallback", "--report", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert figures["engine"].startswith("onnxruntime")
    assert figures["warnings"][0].startswith("Fell back to ONNX Runtime: ")


def test_an_8_bit_bundle_for_another_processor_is_noted(folder, monkeypatch) -> None:
    data = json.loads((folder / MANIFEST_NAME).read_text())
    data |= {
        "precision": "int8",
        "engines": {},
        "calibration": {"target": {"activation_dtype": "uint8", "weight_limit": 127.0}},
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(data))
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.cpu_features", lambda: ("AVX2",))
    (note,) = load_engines(Bundle.open(folder), threads=1).notes
    assert note.startswith("bundle: int8 was calibrated for a processor with VNNI")
    monkeypatch.setattr("rap_edge.runtime.engines.onnxruntime_engine.cpu_features", lambda: ("AVX2", "VNNI"))
    assert load_engines(Bundle.open(folder), threads=1).notes == ()


def test_the_facts_of_this_machine_can_be_asked() -> None:
    machine = this_machine()
    assert machine.platform == platform_name()
    assert bool(machine.driver.devices) == (machine.driver.problem == "")


class FakeDriver:
    """libcuda with one GPU."""

    def __init__(self, status: int = 0, count: int = 1, integrated: int = 0) -> None:
        self._status, self._count, self._integrated = status, count, integrated

    def cuInit(self, flags):  # noqa: N802
        return self._status

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, handle, index):  # noqa: N802
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, handle):  # noqa: N802
        name.value = b"RTX 4090"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, handle):  # noqa: N802
        value._obj.value = {75: 8, 76: 9, 18: self._integrated}[attribute]
        return 0

    def cuDeviceTotalMem_v2(self, size, handle):  # noqa: N802
        assert isinstance(size._obj, ctypes.c_size_t)
        size._obj.value = 24 << 30
        return 0

    def cuDeviceGetUuid_v2(self, identity, handle):  # noqa: N802
        identity.raw = bytes(range(16))
        return 0


def test_the_driver_is_asked_through_its_library() -> None:
    assert query_driver(lambda name: FakeDriver()) == CudaDriver(
        "13.2", (CudaDevice(0, "RTX 4090", "8.9", 24 << 30, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"),), ""
    )
    assert query_driver(lambda name: FakeDriver(integrated=1)).devices[0].integrated
    assert query_driver(lambda name: FakeDriver(count=0)).problem == "no GPU is visible"
    assert query_driver(lambda name: FakeDriver(status=100)).problem == "no GPU is visible"
    assert "803" not in query_driver(lambda name: FakeDriver(status=803)).problem
    assert "CUDA error 46" in query_driver(lambda name: FakeDriver(status=46)).problem


def test_a_machine_without_a_driver_is_a_fact() -> None:
    def missing(name: str):
        raise OSError(name)

    assert query_driver(missing) == CudaDriver(None, (), "no CUDA driver is installed")


def test_commands_in_messages_survive_the_shell(folder, tmp_path) -> None:
    odd = folder.rename(tmp_path / "it's; touch x")
    message = refused(odd, compute_capabilities=("12.0",))
    command = message.partition("build it for this GPU with ")[2].removesuffix(".")
    assert shlex.split(command) == ["rap-export", "--bundle", str(odd), *["--engine", "tensorrt-rtx", "--target", "89"]]
