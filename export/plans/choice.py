"""Which engines an export builds: the backend, the GPUs and the profile that the command line asks for.

In: words. Out: an `EngineChoice`, or a sentence about the word that cannot be followed, before anything slow begins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.preflight import version_numbers
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine.cuda_driver import CudaDriver, query_driver
from rap_edge.runtime.machine.tensorrt_modules import RTX, RTX_CAPABILITIES, TENSORRT, TensorRtModule, load_module

from .job import CURRENT
from .profiles import AHEAD_OF_TIME, PROFILES, capabilities_of

# Every RTX generation from Ampere on; Turing is built for on request.
DEFAULT_TARGETS = ("8.6", "8.9", "12.0", "12.1")
FP8_TARGETS = ("8.9", "12.0", "12.1")
# Its ONNX parser knows Attention from 10.14 on, and RMSNormalization from 10.15 on.
LEAST_TENSORRT = (10, 15)


@dataclass(frozen=True)
class EngineChoice:
    """What to build.

    Attributes:
        module: the TensorRT module.
        targets: what the builder is told: compute capabilities, or `CURRENT`; empty for TensorRT proper.
        capabilities: where the plans run, for the manifest.
        profile: name of the build profile.
        timing_cache: file of TensorRT's timings, "" where there is none.
    """

    module: TensorRtModule
    targets: tuple[str, ...]
    capabilities: tuple[str, ...]
    profile: str
    timing_cache: str = ""

    def file(self, graph: str) -> str:
        """The plan's path inside the bundle: TensorRT proper has one per profile and GPU, TensorRT-RTX one for all."""
        if self.module == RTX:
            return f"{graph}.plan"
        return f"{graph}.tensorrt-{self.profile}-sm{self.capabilities[0].replace('.', '')}.plan"


def choose_engines(
    backend: str,
    target: str | None,
    profile: str | None,
    precision: Precision,
    *,
    load: Callable[[TensorRtModule], ModuleType | None] = load_module,
    driver: Callable[[], CudaDriver] = query_driver,
) -> EngineChoice:
    """Settle what an export builds.

    Args:
        backend: "tensorrt-rtx" or "tensorrt".
        target: compute capabilities such as "86,89", or "current"; None takes the defaults.
        profile: a name of `PROFILES`; None takes "native".
        precision: of the bundle.
        load: gives a module, for tests.
        driver: gives the GPUs, for tests.

    Raises:
        ExportError: the backend is not installed, is too old or cannot build, a target or profile is unknown, or a GPU
            is missing.
    """
    if precision == Precision.FP32:
        raise ExportError(
            "TensorRT fuses attention in float16 only and would run a float32 bundle unfused; pass --precision fp16, "
            "or use the bundle with ONNX Runtime."
        )
    module = next((item for item in (RTX, TENSORRT) if item.backend == backend), None)
    if module is None:
        raise ExportError(f"Plans of {backend!r} cannot be built here; choose {RTX.backend} or {TENSORRT.backend}.")
    loaded = load(module)
    if loaded is None or not hasattr(loaded, "Builder"):
        raise ExportError(f"The builder {module.module!r} is not installed; run {module.install}.")
    if module == RTX:
        if profile is not None:
            raise ExportError("TensorRT-RTX builds for GPUs by --target and has no profiles; leave --profile out.")
        return _rtx(_targets(target, precision), driver)
    if version_numbers(loaded.__version__) < LEAST_TENSORRT:
        least = ".".join(map(str, LEAST_TENSORRT))
        raise ExportError(
            f"TensorRT {loaded.__version__} cannot read the graphs' RMSNormalization; install {least} or later, which "
            "JetPack 7.2 has for Jetson."
        )
    if target not in (None, CURRENT):
        raise ExportError("TensorRT builds for the GPU that is there; leave --target out, or use --profile.")
    name = profile or "native"
    if name not in PROFILES:
        raise ExportError(f"There is no profile {name!r}; choose among {', '.join(PROFILES)}.")
    present = _present(driver)
    cache = _cache_folder() / f"tensorrt-{loaded.__version__}-sm{present.replace('.', '')}.timing"
    return EngineChoice(TENSORRT, (), capabilities_of(name, present), name, str(cache))


def _targets(text: str | None, precision: Precision) -> tuple[str, ...]:
    """Compute capabilities in the order given, each once."""
    if text is None:
        return FP8_TARGETS if precision == Precision.FP8 else DEFAULT_TARGETS
    if text.strip() == CURRENT:
        return (CURRENT,)
    known = {item.replace(".", ""): item for item in RTX_CAPABILITIES}
    result: dict[str, None] = {}
    for word in filter(None, re.split(r"[,\s]+", text.strip())):
        digits = word.lower().removeprefix("sm").replace(".", "").replace("_", "")
        if digits not in known:
            raise ExportError(f"There is no target {word!r}; choose among {', '.join(known)} or current.")
        result[known[digits]] = None
    if not result:
        raise ExportError(f"--target names no GPU; choose among {', '.join(known)} or current.")
    return tuple(result)


def _rtx(targets: tuple[str, ...], driver: Callable[[], CudaDriver]) -> EngineChoice:
    capabilities = (_present(driver),) if targets == (CURRENT,) else targets
    return EngineChoice(RTX, targets, capabilities, AHEAD_OF_TIME)


def _present(driver: Callable[[], CudaDriver]) -> str:
    found = driver()
    if not found.devices:
        raise ExportError(
            f"Building for the GPU that is there needs one and {found.problem}; install its driver, or use "
            "--engine tensorrt-rtx with --target."
        )
    return found.devices[0].compute_capability


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rap-edge"
