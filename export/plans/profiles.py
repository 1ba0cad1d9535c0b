"""Build profiles by name: how far a plan of TensorRT proper travels. TensorRT-RTX has one, its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

AHEAD_OF_TIME = "ahead-of-time"


@dataclass(frozen=True)
class Profile:
    """One way to build with TensorRT proper.

    Attributes:
        hardware: a value of `HardwareCompatibilityLevel`.
        any_version: whether later versions of the same major, and the lean runtime, can run the plan.
        what: for --help and documents.
    """

    hardware: str
    any_version: bool
    what: str


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "native": Profile("NONE", False, "fastest; this kind of GPU and this version only"),
        "same-capability": Profile("SAME_COMPUTE_CAPABILITY", False, "every GPU of this compute capability"),
        "ampere-plus": Profile("AMPERE_PLUS", False, "every GPU from Ampere on"),
        "version-compatible": Profile("NONE", True, "this kind of GPU; later minor versions and the lean runtime"),
        "portable": Profile("AMPERE_PLUS", True, "every GPU from Ampere on; later minor versions and the lean runtime"),
    }
)


def configure_profile(config: Any, module: Any, name: str) -> None:
    """Set what a profile asks for on an `IBuilderConfig`."""
    if name == AHEAD_OF_TIME:
        # TensorRT-RTX promises that a run can be captured only if it never allocates.
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
        return
    profile = PROFILES[name]
    config.hardware_compatibility_level = getattr(module.HardwareCompatibilityLevel, profile.hardware)
    # The inspector tells types in detailed plans only, and the truth test wants them.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if profile.any_version:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
        # The lean runtime inside a plan is code for the CPU, which the runtime refuses to run.
        config.set_flag(module.BuilderFlag.EXCLUDE_LEAN_RUNTIME)


def capabilities_of(name: str, present: str) -> tuple[str, ...]:
    """The compute capabilities that a plan built on a GPU of capability `present` runs on."""
    return ("8.0+",) if PROFILES[name].hardware == "AMPERE_PLUS" else (present,)
