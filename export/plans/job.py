"""What goes into the build of one plan and what comes out, as plain data that crosses to the building process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .truth.claim import Claim

CURRENT = "current"


@dataclass(frozen=True)
class PlanJob:
    """One graph to build.

    Attributes:
        module: import name of the TensorRT module, "tensorrt_rtx" or "tensorrt".
        onnx: path of the graph.
        plan: path to write.
        claim: what the graph claims to be.
        capabilities: compute capabilities to build for, "8.9"; `CURRENT` for the GPU that is there; empty where the
            module knows the present GPU only.
        profile: name of the build profile.
        sizes: per input with free dimensions, its smallest, usual and largest shape.
        timing_cache: file with the timings of earlier builds, "" for none.
        plugin_capability: compute capability of the oldest GPU that shall run the fused hybrid attention, which is
            built as well; "" where the plan takes TensorRT's own.
    """

    module: str
    onnx: str
    plan: str
    claim: Claim
    capabilities: tuple[str, ...]
    profile: str
    sizes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    timing_cache: str = ""
    plugin_capability: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The job as plain JSON types."""
        return asdict(self) | {"claim": self.claim.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlanJob:
        """The job that `to_dict` gave."""
        sizes = {name: tuple(tuple(shape) for shape in shapes) for name, shapes in data["sizes"].items()}
        rest = {"claim": Claim.from_dict(data["claim"]), "capabilities": tuple(data["capabilities"]), "sizes": sizes}
        return cls(**{**data, **rest})


@dataclass(frozen=True)
class PlanResult:
    """One plan that was built and believed.

    Attributes:
        version: of the TensorRT module.
        bytes: size of the plan.
        seconds: from reading the graph to the end of the truth test.
        peak_memory_bytes: largest resident size of the building process, None where the system does not tell.
        layers: of the parsed network.
        activation_bytes: device memory that a run needs besides weights and tensors, 0 if TensorRT did not tell.
        evidence: what the truth test found.
    """

    version: str
    bytes: int
    seconds: float
    peak_memory_bytes: int | None
    layers: int
    activation_bytes: int
    evidence: Mapping[str, Any]
