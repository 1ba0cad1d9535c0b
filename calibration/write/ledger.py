"""The ledger: for every layer of the bundle, whether it is in 8 bits, and why or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.reports.likeness import decibels

from ..choose.timing import Gain
from ..observe.layers import Layer
from ..quantize.variants import GraphPlan
from ..targets import Target


@dataclass(frozen=True)
class LedgerEntry:
    """One layer.

    Attributes:
        graph: name of its graph.
        node: name of the node.
        op: operator.
        decision: precision that the layer has in the bundle.
        reason: why, as a sentence.
        sensitivity_db: PSNR of the roll-out with this layer alone in 8 bits; None if it was not measured.
        milliseconds_saved: per chunk; None if it was not measured.
        measured: whether the time was measured; otherwise a cost model gave it.
        observer: that gave the limit of its input.
        smoothed: whether its input is smoothed.
    """

    graph: str
    node: str
    op: str
    decision: str
    reason: str
    sensitivity_db: float | None
    milliseconds_saved: float | None
    measured: bool
    observer: str
    smoothed: bool

    def to_dict(self) -> dict[str, Any]:
        """The manifest's entry."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What was found out about the layers, by key.

    Attributes:
        gains: seconds saved per chunk; graphs that no chunk runs are missing.
        damages: mean squared differences of the layers that pay.
        chosen: keys in 8 bits.
        spare: keys with which no set was faster.
        why_fewer: which gate made the search give the others up, else empty.
    """

    gains: Mapping[str, Gain]
    damages: Mapping[str, float]
    chosen: frozenset[str]
    spare: frozenset[str] = frozenset()
    why_fewer: str = ""


def make_ledger(
    plans: Mapping[str, GraphPlan], evidence: Evidence, target: Target, precision: Precision
) -> list[LedgerEntry]:
    """An entry for every layer of every graph, in order."""
    return [_entry(plan, layer, evidence, target, precision) for plan in plans.values() for layer in plan.layers]


def _entry(plan: GraphPlan, layer: Layer, evidence: Evidence, target: Target, precision: Precision) -> LedgerEntry:
    gain, damage = evidence.gains.get(layer.key), evidence.damages.get(layer.key)
    chosen = layer.key in evidence.chosen
    return LedgerEntry(
        graph=layer.graph,
        node=layer.node,
        op=layer.op,
        decision=precision if chosen else target.base,
        reason=_reason(layer, gain, chosen, evidence, target),
        sensitivity_db=None if damage is None else decibels(damage),
        milliseconds_saved=None if gain is None else 1e3 * gain.seconds,
        measured=target.measured,
        observer=plan.observer,
        smoothed=chosen and layer.input in plan.smoothed,
    )


def _reason(layer: Layer, gain: Gain | None, chosen: bool, evidence: Evidence, target: Target) -> str:
    if gain is None:
        return "Its graph runs once per portrait, not per chunk, so 8 bits would save nothing."
    how = "measured on this CPU" if target.measured else "by the cost model"
    together = f" (together with {gain.count - 1} layers of its shape)" if gain.count > 1 else ""
    if chosen:
        return f"Saves {1e3 * gain.seconds:.3f} ms per chunk, {how}{together}, and the gates hold."
    if not gain.pays:
        if gain.seconds > 0:
            return (
                f"Saves {1e3 * gain.seconds:.3f} ms per chunk, {how}{together}, which is not above the noise of "
                f"{1e3 * gain.noise:.3f} ms."
            )
        return f"Does not pay: {-1e3 * gain.seconds:.3f} ms per chunk slower in 8 bits, {how}{together}."
    why = "no set with it was faster" if layer.key in evidence.spare else evidence.why_fewer
    return f"Would save {1e3 * gain.seconds:.3f} ms per chunk, {how}{together}, but {why}."
