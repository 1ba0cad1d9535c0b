"""The three modules that run TensorRT plans, as data; none of them is imported before it is needed.

`tensorrt_rtx`, `tensorrt` and `tensorrt_lean` have the same Python interface.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..checks.protobuf_wire import Content

# There TensorRT comes with the system, and wheels are for other machines.
JETSON = Path("/etc/nv_tegra_release")
VERSION_COMPATIBLE = ("version-compatible", "portable")


@dataclass(frozen=True)
class TensorRtModule:
    """One module: its import name, the backend whose plans it runs, and the extra that installs it."""

    module: str
    backend: str
    extra: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        if self.module == "tensorrt" and JETSON.exists():
            return "apt-get install python3-libnvinfer, and make the virtual environment with --system-site-packages"
        return f"pip install 'rap-edge[{self.extra}]'"


RTX = TensorRtModule("tensorrt_rtx", "tensorrt-rtx", "tensorrt-rtx")
TENSORRT = TensorRtModule("tensorrt", "tensorrt", "tensorrt")
LEAN = TensorRtModule("tensorrt_lean", "tensorrt", "tensorrt-lean")
PLAN_BACKENDS = (RTX.backend, TENSORRT.backend)
# What TensorRT-RTX 1.7 can build for.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def modules_for(backend: str, profile: str) -> tuple[TensorRtModule, ...]:
    """The modules that can run plans of a backend, best first; none if the backend is unknown.

    The lean runtime runs version-compatible plans only.
    """
    if backend == RTX.backend:
        return (RTX,)
    if backend == TENSORRT.backend:
        return (TENSORRT, LEAN) if profile in VERSION_COMPATIBLE else (TENSORRT,)
    return ()


def load_module(candidate: TensorRtModule, load: Callable[[str], ModuleType] = import_module) -> ModuleType | None:
    """The imported module, or None where it is not installed or its libraries do not load."""
    try:
        module = load(candidate.module)
    except (ImportError, OSError):
        return None
    # The meta package imports without the library that it is about.
    return module if hasattr(module, "Runtime") else None


def rtx_against(plan: Content) -> str:
    """What TensorRT-RTX itself has against a plan on the GPU that is here; "" if nothing. It reads the header."""
    module = load_module(RTX)
    if module is None:
        return f"it is not installed; run {RTX.install}"
    log = log_of(module)
    verdict, reasons = module.Runtime(log.logger).get_engine_validity(plan)
    if verdict != module.EngineValidity.INVALID:
        return ""
    known = module.EngineInvalidityDiagnostics.__members__
    return ", ".join(name for name, flag in known.items() if int(flag) & reasons) or log.last_error()


class TensorRtLog:
    """What one module says: nothing is printed, the latest is kept for our own sentences.

    Attributes:
        logger: to be handed to everything of the module that takes one.
        errors: the latest errors, each on one line.
        facts: the latest of what it said about its work.
    """

    def __init__(self, module: Any) -> None:
        """Made by `log_of`."""
        errors: deque[str] = deque(maxlen=64)
        facts: deque[str] = deque(maxlen=4096)

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity.name in ("ERROR", "INTERNAL_ERROR"):
                    errors.append(" ".join(message.split()))
                elif severity.name == "INFO":
                    facts.append(message)

        self.errors, self.facts, self.logger = errors, facts, Logger()

    def last_error(self) -> str:
        """What it last complained about, short enough for a place in a sentence."""
        return self.errors[-1].rstrip(".")[:300] if self.errors else "TensorRT gave no reason"


@cache
def log_of(module: Any) -> TensorRtLog:
    """The log of a module: TensorRT uses the first logger of a process for everything, and for as long as it lasts."""
    return TensorRtLog(module)
