"""The three modules that run TensorRT plans, as data; none of them is imported before it is needed.

`tensorrt_rtx`, `tensorrt` and `tensorrt_lean` have the same Python interface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

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
# What TensorRT-RTX 1.7 can build for.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
BACKENDS = ("tensorrt-rtx", "tensorrt")


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


def error_logger(module: Any, take: Callable[[str], None], tell: Callable[[str], None] = lambda fact: None) -> Any:
    """A logger of `module` that gives errors, each on one line, to `take` for our own sentences, and prints nothing.

    What TensorRT says about its work goes to `tell`.
    """

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                take(" ".join(message.split()))
            elif severity.name == "INFO":
                tell(message)

    return Logger()
