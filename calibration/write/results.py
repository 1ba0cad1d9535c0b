"""What a calibration did and reached, as data: for the manifest, the report and `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rap_edge.runtime.bundle.precision import Precision

from ..choose.search import Found
from ..judge.gates import Figure
from ..judge.quality import Bytes
from ..record.recording import CalibrationSet
from ..targets import Target
from .ledger import LedgerEntry


@dataclass(frozen=True)
class Calibration:
    """One finished calibration.

    Attributes:
        output: folder of the calibrated bundle.
        spec: the model's name.
        precision: `INT8` or `FP8`.
        base: precision of the bundle that it was made from.
        target: of the 8 bits.
        against: what the gates compare with.
        recorded: the set.
        observers: per graph, PSNR of the roll-out by observer and the chosen one.
        smoothing: activations whose smoothing was tried.
        ledger: every layer.
        found: the search.
        figures: gates by name.
        speed: times against the base, or None where a cost model stands in.
        hardware: the machine.
        seconds: how long it took, without what an earlier run had finished.
        frames: of the gates' roll-out, uint8 [T, H, W, 3].
    """

    output: str
    spec: str
    precision: Precision
    base: Precision
    target: Target
    against: str
    recorded: CalibrationSet
    observers: Mapping[str, Any]
    smoothing: list[dict[str, Any]]
    ledger: list[LedgerEntry]
    found: Found
    figures: Mapping[str, Figure]
    speed: Mapping[str, Any] | None
    hardware: Mapping[str, Any]
    seconds: float
    frames: Bytes

    def to_dict(self) -> dict[str, Any]:
        """The manifest's entry `calibration`."""
        return {
            "target": asdict(self.target),
            "base": self.base,
            "against": self.against,
            "set": {
                "sha256": self.recorded.sha256,
                "origin": self.recorded.origin,
                "runs": len(self.recorded.entries),
                "strata": self.recorded.strata(),
            },
            "observers": dict(self.observers),
            "smoothing": self.smoothing,
            "ledger": [entry.to_dict() for entry in self.ledger],
            "pareto": [asdict(point) for point in self.found.points],
            "gates": {name: asdict(figure) for name, figure in self.figures.items()},
            "speed": None if self.speed is None else dict(self.speed),
            "hardware": dict(self.hardware),
        }
