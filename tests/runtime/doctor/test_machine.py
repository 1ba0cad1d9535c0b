import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from helpers.bundles.golden_clip import add_golden, change_manifest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.findings import CPU
from hypothesis import given
from hypothesis import strategies as st

import rap_edge.runtime
from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, graph_hash
from rap_edge.runtime.cli.doctor import main
from rap_edge.runtime.doctor.bundle import bundle_section
from rap_edge.runtime.doctor.findings import Diagnosis, Finding, Section
from rap_edge.runtime.doctor.machine import (
    Facts,
    diagnose,
    engine_section,
    gpu_section,
    has_nvidia_hardware,
    machine_section,
    media,
)
from rap_edge.runtime.engines.preflight import Machine, platform_name
from rap_edge.runtime.errors import MemoryPlanError
from rap_edge.runtime.loading import load_engines
from rap_edge.runtime.machine.cpu import cpu_features
from rap_edge.runtime.machine.cuda_driver import CudaDevice, CudaDriver
from rap_edge.runtime.machine.nvml import DriverState, driver_state, free_memory
from rap_edge.runtime.machine.system_memory import system_memory

GIB = 1 << 30
ADA = CudaDevice(0, "NVIDIA RTX 4000 Ada", "8.9", 20 * GIB, "GPU-ada")
GPU = replace(
    CPU,
    machine=Machine(platform_name(), CudaDriver("13.0", (ADA,), ""), {"tensorrt_rtx": "1.7.1.116"}),
    management=DriverState("580.65.06", {"GPU-other": 1, "GPU-ada": 18 * GIB}),
    nvidia_hardware=True,
)


def on_gpu(facts: Facts = GPU, **changes: object) -> Facts:
    return replace(facts, machine=replace(facts.machine, **changes))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def finding(section: Section, topic: str) -> Finding:
    (found,) = (finding for finding in section.findings if finding.topic == topic)
    return found


def test_a_machine_without_a_gpu_is_healthy_and_says_so() -> None:
    driver = finding(gpu_section(CPU), "driver")
    assert (driver.state, driver.cure) == ("absent", "")
    assert "no NVIDIA GPU is plugged in" in driver.text
    assert all(finding.state != "problem" for finding in engine_section(CPU).findings)


def test_a_gpu_is_named_with_its_driver_memory_and_capability() -> None:
    section = gpu_section(GPU)
    assert finding(section, "driver") == Finding("driver", "ok", "580.65.06, runs CUDA 13.0")
    assert finding(section, "GPU 0").text == "NVIDIA RTX 4000 Ada, compute capability 8.9, 20.0 GiB"


@pytest.mark.skipif(sys.platform != "linux", reason="the commands are Debian's")
@pytest.mark.parametrize(
    ("facts", "part", "cure"),
    [
        (
            replace(CPU, nvidia_hardware=True),
            "a GPU is plugged in, but no CUDA driver",
            "apt-get install nvidia-driver",
        ),
        (on_gpu(driver=CudaDriver("13.0", (), "no GPU is visible")), "but no GPU is visible", "nvidia-smi"),
        (
            on_gpu(driver=CudaDriver("12.4", (ADA,), "")),
            "need CUDA 13.0, which comes with driver 580 or later",
            "apt-get install --only-upgrade nvidia-driver",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_problem_with_a_command(facts: Facts, part: str, cure: str) -> None:
    driver = finding(gpu_section(facts), "driver")
    assert (driver.state, driver.cure) == ("problem", cure)
    assert part in driver.text.replace("an NVIDIA GPU", "a GPU")


def test_what_a_gpu_could_use_comes_with_the_command_that_installs_it() -> None:
    section = engine_section(GPU)
    assert finding(section, "tensorrt_rtx") == Finding("tensorrt_rtx", "ok", "1.7.1.116")
    assert finding(section, "tensorrt").cure == "pip install 'rap-edge[tensorrt]'"
    assert "onnxruntime-gpu" in finding(section, "CUDA provider").cure
    with_cuda = replace(GPU, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert all(item.topic != "CUDA provider" for item in engine_section(with_cuda).findings)


def test_the_cuda_packages_are_asked_for_and_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding(engine_section(CPU), "CUDA packages")
    if importlib.util.find_spec("cuda") is not None:
        assert found.state == "ok"
        assert finding(engine_section(GPU), "CUDA packages").state == "ok"
        ancient = on_gpu(driver=CudaDriver("13.0", (replace(ADA, compute_capability="3.5"),), ""))
        assert "compute capability 3.5" in finding(engine_section(ancient), "CUDA packages").text
    monkeypatch.setattr("rap_edge.runtime.doctor.machine.version", lambda package: raise_missing(package))
    assert finding(engine_section(GPU), "CUDA packages") == Finding(
        "CUDA packages",
        "absent",
        "cuda-bindings and nvidia-cuda-nvrtc are not installed",
        "pip install 'rap-edge[cuda]'",
    )
    assert finding(engine_section(CPU), "CUDA packages").cure == ""


def raise_missing(package: str) -> str:
    raise PackageNotFoundError(package)


def test_fast_int8_is_told_from_the_processors_instructions() -> None:
    assert "int8 gains less here" in finding(machine_section(CPU), "instructions").text
    vnni = replace(CPU, features=("AVX2", "AVX-512", "VNNI"))
    assert "AVX2, AVX-512, VNNI; int8 is fast here" in finding(machine_section(vnni), "instructions").text
    unknown = machine_section(replace(CPU, features=None))
    assert all(item.topic != "instructions" for item in unknown.findings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 fma\n", ("AVX2",)),
        ("flags\t\t: avx2 avx512f avx512_vnni amx_int8 amx_tile\n", ("AVX2", "AVX-512", "VNNI", "AMX")),
        ("flags\t\t: avx2 avx_vnni avx512_vnni\n", ("AVX2", "VNNI")),
        ("Features\t: fp asimd asimddp i8mm\n", ("NEON", "dot product", "int8 matrix product")),
        ("flags\t\t: fpu\n", ()),
        ("model name\t: Z80\n", None),
    ],
)
def test_instruction_sets_are_read_from_the_systems_list(line: str, expected: tuple[str, ...] | None) -> None:
    assert cpu_features(f"processor\t: 0\n{line}") == expected


def test_an_nvidia_display_adapter_is_found_on_the_bus(tmp_path: Path) -> None:
    assert has_nvidia_hardware(tmp_path / "nowhere") is None
    for name, vendor, kind in (("bridge", "0x10de", "0x060400"), ("other", "0x1002", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert has_nvidia_hardware(tmp_path) is False
    (tmp_path / "bridge" / "class").write_text("0x030200\n")
    assert has_nvidia_hardware(tmp_path) is True


class Nvml:
    """Stands in for libnvidia-ml.so.1 with two GPUs."""

    def __init__(self, status: int = 0, memory_status: int = 0) -> None:
        self.status, self.memory_status, self.shut_down = status, memory_status, False

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.status

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shut_down = True
        return 0

    def nvmlSystemGetDriverVersion(self, text, length: int) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetCount_v2(self, count) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle) -> int:  # noqa: N802
        handle._obj.value = 100 + index
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle, memory) -> int:  # noqa: N802
        memory._obj.free = handle.value * GIB
        return self.memory_status

    def nvmlDeviceGetUUID(self, handle, identity, size: int) -> int:  # noqa: N802
        identity.value = f"GPU-{handle.value}".encode()
        return 0


def test_the_management_library_gives_version_and_free_memory() -> None:
    library = Nvml()
    assert driver_state(lambda name: library) == DriverState("580.65.06", {"GPU-100": 100 * GIB, "GPU-101": 101 * GIB})
    assert library.shut_down


def test_a_gpu_in_the_memory_of_the_cpu_has_what_programs_left_of_it() -> None:
    # NVML says "not supported" there.
    state = driver_state(lambda name: Nvml(memory_status=3))
    assert state == DriverState("580.65.06", {})
    orin = CudaDevice(0, "Orin", "8.7", 7 * GIB, "GPU-orin", integrated=True)
    for available, free in ((3 * GIB, 3 * GIB), (8 * GIB, 7 * GIB)):
        assert free_memory(state, [orin], lambda available=available: (8 * GIB, available)) == free
    assert free_memory(state, [orin], lambda: None) == 7 * GIB
    assert replace(GPU, management=state).free_bytes == 20 * GIB


def test_linux_tells_how_much_memory_is_free_for_programs(tmp_path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    3000 kB\n")
    assert system_memory(tmp_path / "meminfo") == (8000 << 10, 3000 << 10)
    assert system_memory(tmp_path / "missing") is None


def test_a_management_library_that_is_missing_or_does_not_start_is_a_fact() -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    assert driver_state(missing) is None
    assert driver_state(lambda name: Nvml(status=9)) is None


def test_free_memory_is_that_of_the_gpu_that_runs_whatever_its_number_in_nvml() -> None:
    assert GPU.free_bytes == 18 * GIB
    assert replace(GPU, management=DriverState("580", {"GPU-other": 1})).free_bytes == 20 * GIB
    assert replace(GPU, management=None).free_bytes == 20 * GIB
    assert CPU.free_bytes is None


def test_portaudio_is_asked_for_only_where_its_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert finding(media(missing), "PortAudio").state == "absent"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("sys.platform", "linux")
    assert finding(media(missing), "PortAudio").cure == "apt-get install libportaudio2"
    assert finding(media(lambda name: None), "PortAudio").state == "ok"


def add_plans(root: Path, lacking: str = "", **changes: object) -> None:
    """Give every graph but one an engine of TensorRT-RTX; its file is a few bytes, as nothing loads it."""
    manifest = Bundle.open(root).manifest
    (root / "plan").write_bytes(b"plan")
    data = json.loads((root / MANIFEST_NAME).read_text())
    data["files"]["plan"] = vars(hash_file(root / "plan"))
    data["engines"] = {
        name: [
            {
                "file": "plan",
                "backend": "tensorrt-rtx",
                "version": "1.7.1.116",
                "platform": platform_name(),
                "compute_capabilities": ["8.9"],
                "profile": "native",
                "graph_sha256": graph_hash(manifest.files, graph),
                "evidence": {},
                **changes,
            }
        ]
        for name, graph in manifest.graphs.items()
        if name != lacking
    }
    (root / MANIFEST_NAME).write_text(json.dumps(data))


def test_a_bundle_runs_in_onnx_runtime_with_the_command_to_type(bundle: Path) -> None:
    section = bundle_section(Bundle.open(bundle), CPU)
    assert finding(section, "model").text.startswith("tiny, fp32, ")
    assert finding(section, "onnxruntime").cure == f"rap-run --bundle {bundle} --audio speech.wav -o out.mp4"
    assert finding(section, "self-test").state == "absent"
    assert "for one session: weights 1 MiB" in finding(section, "GPU memory").text


def test_commands_survive_a_folder_with_spaces(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path / "my bundle")
    assert f"'{root}'" in finding(bundle_section(Bundle.open(root), CPU), "onnxruntime").cure


def test_plans_that_fit_the_gpu_run_with_the_command_to_type(bundle: Path) -> None:
    add_plans(bundle)
    found = finding(bundle_section(Bundle.open(bundle), GPU), "tensorrt-rtx")
    assert found.state == "ok"
    assert "tensorrt-rtx 1.7.1.116, native, for " in found.text
    assert found.cure.startswith(f"rap-run --engine {bundle / 'plan'} ")


@pytest.mark.parametrize(
    ("changes", "facts", "state", "part"),
    [
        ({"compute_capabilities": ["12.0"]}, GPU, "problem", "has 8.9; build it for this GPU with 'rap-export "),
        ({"version": "1.6.0"}, GPU, "problem", "was built by tensorrt-rtx 1.6.0 and 1.7.1.116 is installed"),
        ({}, on_gpu(versions={}), "problem", "pip install 'rap-edge[tensorrt-rtx]'"),
        ({}, CPU, "absent", "does not run here"),
        ({"lacking": "dit"}, GPU, "problem", "the graph 'dit' has no plan in this build"),
    ],
)
def test_plans_that_do_not_run_say_why_and_what_to_do(
    bundle: Path, changes: dict[str, object], facts: Facts, state: str, part: str
) -> None:
    add_plans(bundle, **changes)
    found = finding(bundle_section(Bundle.open(bundle), facts), "tensorrt-rtx")
    assert found.state == state
    assert part in found.text


def test_too_little_gpu_memory_is_a_problem_and_enough_is_counted_in_sessions(bundle: Path) -> None:
    small = replace(GPU, management=DriverState("580", {"GPU-ada": 64 << 20}))
    refused = finding(bundle_section(Bundle.open(bundle), small), "GPU memory")
    assert refused.state == "problem"
    assert "64 MiB are free; export with --precision fp16" in refused.text
    assert "would fit" in finding(bundle_section(Bundle.open(bundle), GPU), "GPU memory").text


def test_plans_that_cannot_fit_are_refused_before_the_first_is_loaded(bundle: Path) -> None:
    add_plans(bundle)
    crowded = on_gpu(driver=CudaDriver("13.0", (replace(ADA, memory_bytes=4096),), "")).machine
    with pytest.raises(MemoryPlanError, match=r"1 session of 'tiny' in fp32 needs about .* and 1 MiB are free"):
        load_engines(Bundle.open(bundle), "tensorrt-rtx", machine=crowded)
    loaded = load_engines(Bundle.open(bundle), "tensorrt-rtx", machine=crowded, fallback=True, threads=1)
    assert loaded.notes[0].startswith("Fell back to ONNX Runtime: 1 session of 'tiny'")
    assert loaded.engines["dit"].backend.startswith("onnxruntime")


def test_a_damaged_file_is_named(bundle: Path) -> None:
    (bundle / "dit.onnx").write_bytes(b"")
    found = finding(bundle_section(Bundle.open(bundle), CPU), "files")
    assert found.state == "problem"
    assert "'dit.onnx' has 0 bytes" in found.text


def test_the_golden_clip_is_read_before_the_self_test_is_offered(bundle: Path) -> None:
    add_golden(bundle)
    offered = finding(bundle_section(Bundle.open(bundle), CPU), "self-test")
    assert offered.cure == f"rap-run --selftest --bundle {bundle}"
    change_manifest(bundle, golden={"seed": None})
    assert finding(bundle_section(Bundle.open(bundle), CPU), "self-test").state == "problem"


def test_the_memory_that_a_bundle_takes_on_the_processor_is_told(bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr("rap_edge.runtime.doctor.bundle.available_memory", lambda: (GIB, GIB))
    told = finding(bundle_section(Bundle.open(bundle), CPU), "memory")
    assert told.state == "ok"
    assert "MiB for one session on the processor of 1.0 GiB free" in told.text
    monkeypatch.setattr("rap_edge.runtime.doctor.bundle.available_memory", lambda: (GIB, 1000))
    assert finding(bundle_section(Bundle.open(bundle), CPU), "memory").state == "problem"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_that_is_slow_on_this_processor_is_told(bundle: Path, precision: str) -> None:
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    (bundle / MANIFEST_NAME).write_text(json.dumps({**data, "precision": precision}))
    found = finding(bundle_section(Bundle.open(bundle), CPU), "onnxruntime")
    assert "fp32" in found.text
    with_cuda = replace(GPU, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert finding(bundle_section(Bundle.open(bundle), with_cuda), "onnxruntime").text == "runs on the GPU"


def calibrated_for(target: object, bundle: Path) -> None:
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data |= {"precision": "int8", "calibration": {"target": target}}
    (bundle / MANIFEST_NAME).write_text(json.dumps(data))


@pytest.mark.parametrize("target", ["a stranger's text", {"activation_dtype": "uint8", "weight_limit": "64"}])
def test_a_calibration_that_says_nonsense_is_a_problem(bundle: Path, target: object) -> None:
    calibrated_for(target, bundle)
    found = finding(bundle_section(Bundle.open(bundle), CPU), "onnxruntime")
    assert found.state == "problem"
    assert "calibration.target" in found.text


@pytest.mark.parametrize(
    ("target", "features", "part"),
    [
        ({"activation_dtype": "uint8", "weight_limit": 127.0}, ("AVX2",), "8-bit sums saturate on this one"),
        ({"activation_dtype": "uint8", "weight_limit": 64.0}, ("AVX2",), ""),
        ({"activation_dtype": "uint8", "weight_limit": 127.0}, ("AVX2", "VNNI"), ""),
        ({"activation_dtype": "uint8", "weight_limit": 127.0}, ("NEON", "dot product"), ""),
        ({"activation_dtype": "uint8", "weight_limit": 127.0}, None, ""),
        ({"activation_dtype": "int8", "weight_limit": 127.0}, ("AVX2", "VNNI"), "calibrated for GPUs"),
    ],
)
def test_an_8_bit_bundle_from_another_kind_of_processor_is_told(bundle: Path, target, features, part: str) -> None:
    calibrated_for(target, bundle)
    text = finding(bundle_section(Bundle.open(bundle), replace(CPU, features=features)), "onnxruntime").text
    assert part in text if part else text == "runs on the processor"


def test_int8_for_cpus_is_not_said_to_run_on_the_gpu(bundle: Path) -> None:
    data = json.loads((bundle / MANIFEST_NAME).read_text())
    data |= {"precision": "int8", "calibration": {"target": {"activation_dtype": "uint8", "weight_limit": 64.0}}}
    (bundle / MANIFEST_NAME).write_text(json.dumps(data))
    with_cuda = replace(GPU, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert finding(bundle_section(Bundle.open(bundle), with_cuda), "onnxruntime").text == "runs on the processor"


def test_the_command_prints_json_that_says_whether_all_is_well(bundle: Path, capsys) -> None:
    assert main(["--json", "--bundle", str(bundle)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is True
    assert [section["title"] for section in found["sections"]][-1] == f"Bundle {bundle}"
    assert {"topic", "state", "text", "cure"} == set(found["sections"][0]["findings"][0])


def test_a_problem_is_an_exit_status_and_a_wrong_folder_a_sentence(bundle: Path, capsys) -> None:
    (bundle / "dit.onnx").write_bytes(b"")
    assert main(["--bundle", str(bundle)]) == 1
    assert "'dit.onnx' has 0 bytes" in capsys.readouterr().out.replace("\n" + " " * 21, " ")
    assert main(["--bundle", str(bundle / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rap-doctor: ")
    assert said.err.count("\n") == 1


SOME = Diagnosis(
    "rap-doctor",
    (
        Section(
            "One",
            (
                Finding("good", "ok", "as it should be " * 9),
                Finding("missing", "absent", "not here"),
                Finding("bad", "problem", "broken", "mend --with 'a command that is far too long to fit on one line'"),
            ),
        ),
    ),
)


@given(st.integers(40, 120))
def test_the_screen_keeps_its_width_but_never_breaks_a_command(width: int) -> None:
    lines = SOME.to_screen(width).splitlines()
    assert all(len(line) <= width for line in lines if "$ " not in line)
    assert any(line.endswith("far too long to fit on one line'") for line in lines)


def test_the_screen_does_without_signs_and_colours() -> None:
    plain = SOME.to_screen(signs=False)
    assert plain.isascii()
    assert "\x1b" not in plain
    assert "  NO  bad " in plain
    assert "\x1b[31m✗\x1b[0m" in SOME.to_screen(colour=True)


def test_a_strangers_text_cannot_move_the_cursor() -> None:
    finding = Finding("topic\x1b[2J", "ok", "text\x1b]0;title\x07", "cure\r\n")
    shown = Diagnosis("rap-doctor", (Section("title\x1b", (finding,)),)).to_screen()
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_diagnosis_is_healthy_unless_something_is_a_problem() -> None:
    assert not SOME.healthy
    assert diagnose(CPU, [Section("x", (Finding("t", "absent", ""),))]).healthy


def test_numpy_and_onnxruntime_are_all_it_needs(tmp_path: Path, bundle: Path) -> None:
    """An interpreter without site-packages, given these two and the runtime's folder alone."""
    import numpy
    import onnxruntime

    for module in (numpy, onnxruntime):
        home = Path(module.__file__).parent
        for folder in (home, home.with_name(f"{home.name}.libs")):
            if folder.exists():
                (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "rap_edge").mkdir()
    (tmp_path / "rap_edge" / "runtime").symlink_to(Path(rap_edge.runtime.__file__).parent)
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import rap_edge.runtime.cli.doctor as d; sys.exit(d.main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(tmp_path), "--bundle", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stderr == ""
    # PyAV is a dependency of rap-run, so its absence is a problem; all else is as it should be.
    assert done.returncode == 1
    assert done.stdout.count("✗") + done.stdout.count("  NO  ") == 1
    assert "$ pip install 'av>=18'" in done.stdout
    assert f"$ rap-run --bundle {bundle} --audio speech.wav -o out.mp4" in done.stdout
