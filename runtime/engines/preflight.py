"""Whether a built engine can run here, settled fact by fact before anything of it is deserialised.

In: an engine as the manifest states it, and the machine's facts. Out: the module that will run it, or an error that
names the one fact that is wrong and the command that mends it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ..bundle.bundle import Bundle
from ..bundle.manifest import EngineInfo, graph_hash
from ..checks.needs import Need
from ..checks.protobuf_wire import Content
from ..errors import BundleError, PreflightError
from ..machine.cuda_driver import CudaDriver, query_driver
from ..machine.shell import named_command
from ..machine.tensorrt_modules import (
    LEAN,
    RTX,
    RTX_CAPABILITIES,
    TENSORRT,
    VERSION_COMPATIBLE,
    TensorRtModule,
    load_module,
    modules_for,
    rtx_against,
)

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

# What TensorRT's and ONNX Runtime's packages and the CUDA bindings of the extras are built for.
OLDEST_CUDA = "13.0"


@dataclass(frozen=True)
class Machine:
    """The facts that decide whether an engine runs.

    Attributes:
        platform: as `EngineInfo.platform`.
        driver: the CUDA driver and its GPUs.
        versions: by import name, of the TensorRT modules that are installed and load.
        against: what TensorRT-RTX itself has against a plan on the GPU that is here; "" if nothing.
    """

    platform: str
    driver: CudaDriver
    versions: Mapping[str, str]
    against: Callable[[Content], str] = rtx_against


def this_machine() -> Machine:
    """The facts of the machine that this process runs on; imports whichever TensorRT modules are installed."""
    found = {item.module: load_module(item) for item in (RTX, TENSORRT, LEAN)}
    versions = {name: str(module.__version__) for name, module in found.items() if module is not None}
    return Machine(platform_name(), query_driver(), versions)


def platform_name() -> str:
    """Operating system and machine as manifests state them, "linux-x86_64"."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


def check_engine(bundle: Bundle, name: str, engine: EngineInfo, machine: Machine) -> TensorRtModule:
    """Compare what an engine needs with what is here.

    Args:
        bundle: that lists the engine.
        name: of the graph that it was built from.
        engine: the manifest's entry.
        machine: the facts, usually `this_machine()`.

    Returns:
        The module that runs it.

    Raises:
        PreflightError: names the first fact that is wrong and the command that mends it. In turn: the plan's size, the
            graph that it was built from, platform, module, version, GPU, compute capability.
    """
    _check_files(bundle, name, engine, partial(_failure, engine.file))
    _check_platform(bundle, engine, machine)
    module = fitting_module(bundle, engine, machine)
    _check_gpu(bundle, engine, machine)
    return module


def engine_needs(bundle: Bundle, name: str, engine: EngineInfo, machine: Machine) -> tuple[Need, ...]:
    """What `check_engine` asks for, each for itself, in the order in which to mend what is missing."""
    files = partial(_check_files, bundle, name, engine, partial(_failure, engine.file))
    return (files, *(partial(ask, bundle, engine, machine) for ask in (_check_platform, _check_gpu, fitting_module)))


def needs_of_unbuilt(bundle: Bundle, file: str, machine: Machine) -> tuple[Need, ...]:
    """What a plan that the bundle lacks asks for, itself first, as if TensorRT-RTX had built it for this GPU."""
    engine = _unbuilt(file, machine.platform, machine.versions.get(RTX.module, ""))
    asks = (partial(ask, bundle, engine, machine) for ask in (_check_gpu, fitting_module))
    return (partial(refuse_unbuilt, bundle, file), *asks)


def refuse_unbuilt(bundle: Bundle, file: str) -> None:
    """Raise the `PreflightError` of a plan that the bundle lacks."""
    raise _failure(file, "has not been built", f"run {rebuild_command(bundle, _unbuilt(file))}")


def _unbuilt(file: str, platform: str = "", version: str = "") -> EngineInfo:
    return EngineInfo(file, RTX.backend, version, platform, ("0.0+",), "", "")


def _check_platform(bundle: Bundle, engine: EngineInfo, machine: Machine) -> None:
    if machine.platform != engine.platform:
        raise _failure(
            engine.file,
            f"was built for {engine.platform} and this is {machine.platform}",
            f"build it here with {rebuild_command(bundle, engine)}",
        )


def fitting_module(bundle: Bundle, engine: EngineInfo, machine: Machine) -> TensorRtModule:
    """The module here that runs an engine; raises `PreflightError` if there is none."""
    fail = partial(_failure, engine.file)
    candidates = modules_for(engine.backend, engine.profile)
    if not candidates:
        raise unknown_backend(engine)
    present = [item for item in candidates if item.module in machine.versions]
    if not present:
        raise fail(
            f"needs the module {candidates[-1].module!r}, which is not installed", f"run {candidates[-1].install}"
        )
    fitting = [item for item in present if _runs(engine, machine.versions[item.module])]
    if not fitting:
        raise fail(
            f"was built by {engine.backend} {engine.version} and {machine.versions[present[0].module]} is installed",
            f"build it again with {rebuild_command(bundle, engine)}",
        )
    return fitting[0]


def covers(capabilities: tuple[str, ...], present: str) -> bool:
    """Whether a GPU of compute capability `present`, "8.9", is among `capabilities`; "8.0+" takes later ones too."""
    return any(
        item == present or (item.endswith("+") and version_numbers(item[:-1]) <= version_numbers(present))
        for item in capabilities
    )


def rebuild_command(bundle: Bundle, engine: EngineInfo, target: str = "") -> str:
    """The command that builds the bundle's engines again, for the compute capability `target` if one is given."""
    options = ["--target", target] if target else []
    if engine.backend == TENSORRT.backend and engine.profile != "native":
        options += ["--profile", engine.profile]
    return named_command("rap-export", "--bundle", bundle.root, "--engine", engine.backend, *options)


def damaged(bundle: Bundle, engine: EngineInfo, error: BundleError) -> PreflightError:
    """That the plan is not what the manifest says, and the command that mends it."""
    cure = f"copy it again or run {rebuild_command(bundle, engine)}"
    return _failure(engine.file, f"is damaged ({_inner(error)})", cure)


def unknown_backend(engine: EngineInfo) -> PreflightError:
    """The error of a plan for something that is built by a later version."""
    fact = f"needs the backend {engine.backend!r}, which this version does not know"
    return _failure(engine.file, fact, "upgrade rap-edge")


def _check_files(bundle: Bundle, name: str, engine: EngineInfo, fail: Callable[[str, str], PreflightError]) -> None:
    graph, files = bundle.manifest.graphs[name], bundle.manifest.files
    try:
        bundle.check_sizes([engine.file])
    except BundleError as error:
        raise damaged(bundle, engine, error) from None
    try:
        bundle.check_sizes(bundle.graph_files(name))
    except BundleError as error:
        raise fail(
            f"belongs to a graph that is damaged ({_inner(error)})", "copy the bundle again or export it again"
        ) from None
    if graph_hash(files, graph) != engine.graph_sha256:
        raise fail(
            f"was built from another {graph.file!r} than the bundle holds now",
            f"build it again with {rebuild_command(bundle, engine)}",
        )


def is_too_old(driver: CudaDriver) -> bool:
    """Whether a driver does not run what the GPU packages are built for."""
    return version_numbers(driver.version or "0") < version_numbers(OLDEST_CUDA)


def _check_gpu(bundle: Bundle, engine: EngineInfo, machine: Machine) -> None:
    fail, driver = partial(_failure, engine.file), machine.driver
    if not driver.devices:
        raise fail(
            f"needs an NVIDIA GPU and {driver.problem}",
            f"install its driver, or run on the CPU with {_cpu_command(bundle)} or --fallback",
        )
    if is_too_old(driver):
        raise fail(
            f"needs a driver for CUDA {OLDEST_CUDA} and the one here is for CUDA {driver.version}",
            f"update the NVIDIA driver, or run on the CPU with {_cpu_command(bundle)} or --fallback",
        )
    gpu = driver.devices[0]
    if covers(engine.compute_capabilities, gpu.compute_capability):
        return
    wanted = ", ".join(engine.compute_capabilities)
    fact = f"was built for compute capability {wanted} and the {gpu.name} here has {gpu.compute_capability}"
    if engine.backend == RTX.backend and gpu.compute_capability not in RTX_CAPABILITIES:
        # What it can build for by name may be less than what it runs on.
        if not (reason := _asked(bundle, engine, machine)):
            return
        raise fail(f"{fact}, where TensorRT-RTX refuses it ({reason})", f"run {_cpu_command(bundle)}")
    target = gpu.compute_capability.replace(".", "") if engine.backend == RTX.backend else ""
    raise fail(fact, f"build it for this GPU with {rebuild_command(bundle, engine, target)}")


def _asked(bundle: Bundle, engine: EngineInfo, machine: Machine) -> str:
    try:
        with bundle.mapped(engine.file) as plan:
            return machine.against(plan)
    except BundleError as error:
        raise damaged(bundle, engine, error) from None


def _runs(engine: EngineInfo, version: str) -> bool:
    if engine.profile in VERSION_COMPATIBLE:
        built, present = version_numbers(engine.version), version_numbers(version)
        return built[:1] == present[:1] and present >= built
    return version == engine.version


def version_numbers(version: str) -> tuple[int, ...]:
    """The parts of a version, to be compared; a part that is no number counts as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def _cpu_command(bundle: Bundle) -> str:
    return named_command("rap-run", "--bundle", bundle.root)


def _failure(file: str, fact: str, cure: str) -> PreflightError:
    return PreflightError(f"The engine {file!r} {fact}; {cure}.")


def _inner(error: BundleError) -> str:
    """The fact in another error's sentence, without its cure."""
    return str(error).partition(";")[0]
