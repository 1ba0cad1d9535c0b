"""What the steps of a calibration share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rap_edge.export.stages import Stages
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.journal import Journal
from rap_edge.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine, load_engines
from rap_edge.runtime.spec import ModelSpec

from ..choose.sensitivity import CHUNKS, Sensitivity
from ..choose.timing import SECONDS_PER_VARIANT
from ..judge.gates import Gates
from ..judge.quality import talk_chunks
from ..quantize.variants import GraphPlan, Variants
from ..record.clips import Amounts, Material
from ..targets import Target


@dataclass(frozen=True)
class Settings:
    """Choices of a calibration that are not the model's.

    Attributes:
        amounts: of recording and judging.
        gates: what must be reached.
        sensitivity_chunks: chunks that a layer's sensitivity is measured over.
        timing_seconds: about how long each variant of a graph is timed.
        race_chunks: chunks of the final comparison of times.
        threads: of ONNX Runtime; None takes every core.
    """

    amounts: Amounts = field(default_factory=Amounts)
    gates: Gates = field(default_factory=Gates)
    sensitivity_chunks: int = CHUNKS
    timing_seconds: float = SECONDS_PER_VARIANT
    race_chunks: int = 10
    threads: int | None = None


@dataclass
class Context:
    """One calibration under way.

    Attributes:
        bundle: that is calibrated.
        target: of the 8 bits.
        material: portraits and sounds.
        settings: limits.
        work: folder of what survives an interruption.
        journal: of finished steps.
        stages: is told what is being done.
        base: the bundle's engines.
        plans: what is known of every graph.
    """

    bundle: Bundle
    target: Target
    material: Material
    settings: Settings
    work: Path
    journal: Journal
    stages: Stages
    base: Mapping[str, OnnxRuntimeEngine]
    plans: dict[str, GraphPlan]

    @cached_property
    def single(self) -> Mapping[str, OnnxRuntimeEngine]:
        """The bundle's engines on one thread."""
        return load_engines(self.bundle, 1)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """What changes of one graph do to the short clip."""
        short = self.material.short
        chunks = min(self.settings.sensitivity_chunks, talk_chunks(self.spec, short))
        return Sensitivity(self.spec, self.base, short, chunks)

    @property
    def spec(self) -> ModelSpec:
        """The bundle's."""
        return self.bundle.manifest.spec

    @property
    def variants(self) -> Variants:
        """Graphs with layers in 8 bits, by the plans as they are now."""
        return Variants(self.spec, self.plans, self.target, self.work / "variants", self.settings.threads)
