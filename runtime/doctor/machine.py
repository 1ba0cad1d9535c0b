"""What this machine can run: processor, GPU, engines, sound and video; nothing optional is needed to ask.

In: the machine. Out: sections of findings, each with the command that mends what is missing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ..engines.onnxruntime_engine import cpu_name
from ..engines.preflight import OLDEST_CUDA, Machine, is_too_old, this_machine
from ..errors import EngineError
from ..inputs.portaudio import has_library
from ..loop.gpu.kernels import compile_kernels
from ..machine.available import available_cores, available_memory
from ..machine.cgroup import ROOT, cpu_quota, memory_limit
from ..machine.cpu import FAST_INT8, cpu_features
from ..machine.cuda import INSTALL
from ..machine.cuda_driver import CudaDriver
from ..machine.nvml import DriverState, driver_state, free_memory
from ..machine.system_memory import as_gib
from ..machine.tensorrt_modules import LEAN, RTX, TENSORRT
from .findings import Diagnosis, Finding, Section

# The first driver with CUDA 13.
OLDEST_DRIVER = 580
_NVIDIA = "0x10de"


@dataclass(frozen=True)
class Facts:
    """The machine, as far as findings depend on it.

    Attributes:
        machine: platform, CUDA driver with its GPUs, and TensorRT modules.
        management: the driver's version and free memory, None without a driver.
        nvidia_hardware: whether an NVIDIA GPU is plugged in; None where the system does not tell.
        providers: of ONNX Runtime.
        features: of the processor, see `cpu_features`.
    """

    machine: Machine
    management: DriverState | None
    nvidia_hardware: bool | None
    providers: tuple[str, ...]
    features: tuple[str, ...] | None

    @property
    def free_bytes(self) -> int | None:
        """Free memory of the GPU that engines run on, see `free_memory`."""
        return free_memory(self.management, self.machine.driver.devices)


def find_facts() -> Facts:
    """Ask the system; imports whichever TensorRT modules are installed."""
    return Facts(
        machine=this_machine(),
        management=driver_state(),
        nvidia_hardware=has_nvidia_hardware(),
        providers=tuple(ort.get_available_providers()),
        features=cpu_features(),
    )


def diagnose(facts: Facts, bundles: Sequence[Section] = ()) -> Diagnosis:
    """All findings about the machine, then those about bundles."""
    program = f"rap-doctor {_version('rap-edge') or 'of unknown version'}, Python {platform.python_version()}"
    return Diagnosis(program, (machine_section(facts), gpu_section(facts), engine_section(facts), media(), *bundles))


def machine_section(facts: Facts, root: Path = ROOT) -> Section:
    """Processor and memory; `root` is of the file system that tells of the container's limits."""
    findings = [
        Finding("system", "ok", f"{facts.machine.platform}, {platform.platform(terse=True)}"),
        Finding("processor", "ok", f"{cpu_name()}, {_cores(root)}"),
    ]
    if facts.features is not None:
        fast = "int8 is fast here" if FAST_INT8.intersection(facts.features) else "int8 gains less here"
        findings.append(Finding("instructions", "ok", f"{', '.join(facts.features) or 'none that matter'}; {fast}"))
    if (memory := available_memory(root)) is not None:
        inside = "" if memory_limit(root) is None else ", as far as the container may go"
        findings.append(Finding("memory", "ok", f"{as_gib(memory[0])}, {as_gib(memory[1])} free{inside}"))
    return Section("Machine", tuple(findings))


def gpu_section(facts: Facts) -> Section:
    """The CUDA driver and its GPUs."""
    driver = facts.machine.driver
    if not driver.devices:
        return Section("GPU", (_no_gpu(driver, facts.nvidia_hardware),))
    number = facts.management.version if facts.management else "of unknown version"
    text = f"{number}, runs CUDA {driver.version}"
    if is_too_old(driver):
        finding = Finding(
            "driver",
            "problem",
            f"{text}; the GPU packages need CUDA {OLDEST_CUDA}, which comes with driver {OLDEST_DRIVER} or later",
            "apt-get install --only-upgrade nvidia-driver" if sys.platform == "linux" else "",
        )
    else:
        finding = Finding("driver", "ok", text)
    gpus = tuple(
        Finding(
            f"GPU {gpu.index}",
            "ok",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {as_gib(gpu.memory_bytes)}",
        )
        for gpu in driver.devices
    )
    return Section("GPU", (finding, *gpus))


def engine_section(facts: Facts) -> Section:
    """ONNX Runtime and the TensorRT modules."""
    gpu = bool(facts.machine.driver.devices)
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in facts.providers)
    findings = [Finding("ONNX Runtime", "ok", f"{ort.__version__}, providers: {names}")]
    if gpu and "CUDAExecutionProvider" not in facts.providers:
        findings.append(
            Finding(
                "CUDA provider",
                "absent",
                "this build of ONNX Runtime leaves the GPU alone; the CUDA build replaces it",
                "pip uninstall --yes onnxruntime && pip install 'rap-edge[gpu]' && "
                "pip install --force-reinstall --no-deps onnxruntime-gpu",
            )
        )
    for module in (RTX, TENSORRT, LEAN):
        if (found := facts.machine.versions.get(module.module)) is not None:
            state = Finding(module.module, "ok", f"{found}{'' if gpu else ', which needs an NVIDIA GPU to run plans'}")
        else:
            state = Finding(module.module, "absent", "not installed", module.install if gpu else "")
        findings.append(state)
    findings.append(_cuda_packages(facts.machine.driver))
    return Section("Engines", tuple(findings))


def media(load: Callable[[str], Any] = ctypes.CDLL) -> Section:
    """PyAV, which reads speech and writes video, and PortAudio, which opens microphones and speakers."""
    return Section("Sound and video", (_pyav(), _portaudio(load)))


def has_nvidia_hardware(devices: Path = Path("/sys/bus/pci/devices")) -> bool | None:
    """Whether an NVIDIA display adapter is on the PCI bus; None where the system does not tell."""
    try:
        folders = list(devices.iterdir())
        return any(
            (folder / "vendor").read_text().strip() == _NVIDIA
            and (folder / "class").read_text().strip().startswith("0x03")
            for folder in folders
        )
    except OSError:
        return None


def _cores(root: Path) -> str:
    cores, quota = available_cores(root), cpu_quota(root)
    text = f"{cores} {'core' if cores == 1 else 'cores'} for this process"
    return text if quota is None else f"{text}, whose container has the time of {quota:.3g}"


def _no_gpu(driver: CudaDriver, hardware: bool | None) -> Finding:
    if driver.version is not None:
        return Finding(
            "driver", "problem", f"there is a driver for CUDA {driver.version}, but {driver.problem}", "nvidia-smi"
        )
    if hardware:
        cure = "apt-get install nvidia-driver" if sys.platform == "linux" else ""
        return Finding("driver", "problem", f"an NVIDIA GPU is plugged in, but {driver.problem}", cure)
    where = "no NVIDIA GPU is plugged in" if hardware is False else driver.problem
    return Finding("driver", "absent", f"{where}; bundles run on the processor")


def _cuda_packages(driver: CudaDriver) -> Finding:
    """What plans need besides TensorRT; on a GPU the kernels of a chunk are compiled for it."""
    found = {name: _version(name) for name in ("cuda-bindings", "nvidia-cuda-nvrtc")}
    if lacking := [name for name, number in found.items() if number is None]:
        text = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed"
        return Finding("CUDA packages", "absent", text, INSTALL if driver.devices else "")
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    if driver.devices:
        try:
            compile_kernels(driver.devices[0].compute_capability)
        except EngineError as error:
            return Finding("CUDA packages", "problem", f"{text}: {error}")
    return Finding("CUDA packages", "ok", text)


def _pyav() -> Finding:
    try:
        module = import_module("av")
    except (ImportError, OSError):
        return Finding(
            "PyAV",
            "problem",
            "does not load, so rap-run can neither read speech nor write video",
            "pip install 'av>=18'",
        )
    return Finding("PyAV", "ok", f"{module.__version__}, reads speech and writes video")


def _portaudio(load: Callable[[str], Any]) -> Finding:
    if importlib.util.find_spec("sounddevice") is None:
        return Finding(
            "PortAudio", "absent", "no microphone without the package sounddevice", "pip install sounddevice"
        )
    if sys.platform != "linux":
        return Finding("PortAudio", "ok", f"comes with sounddevice {_version('sounddevice')}")
    if not has_library(load):
        text = "sounddevice is here and its library is not, so no microphone can be opened"
        return Finding("PortAudio", "problem", text, "apt-get install libportaudio2")
    return Finding("PortAudio", "ok", f"with sounddevice {_version('sounddevice')}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
