"""`rap-export explain`: why a layer of a calibrated bundle has its precision, from the ledger in its manifest."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import recorded
from rap_edge.runtime.checks.bounds import Real, Text
from rap_edge.runtime.errors import BundleError

_NEAR = 3


@dataclass(frozen=True)
class _Entry:
    """One layer, as rap-calibrate's ledger has it."""

    graph: Annotated[str, Text()]
    node: Annotated[str, Text(1024)]
    op: Annotated[str, Text()]
    decision: Annotated[str, Text()]
    reason: Annotated[str, Text(1024)]
    sensitivity_db: Annotated[float, Real(-1000.0, 1000.0)] | None
    milliseconds_saved: Annotated[float, Real(-1e9, 1e9)] | None
    measured: bool
    observer: Annotated[str, Text()]
    smoothed: bool


@dataclass(frozen=True)
class _Calibration:
    ledger: tuple[_Entry, ...] = ()


def explain(bundle: str | Path, layer: str) -> str:
    """What the ledger says of every layer that `layer` names.

    Args:
        bundle: a folder that rap-calibrate wrote.
        layer: name of a node, of the module it was captured from, or either after "graph:".

    Raises:
        BundleError: the bundle was not calibrated, or there is no such layer; names those that are near.
    """
    ledger = recorded(_Calibration, Bundle.open(bundle).manifest.calibration, "calibration").ledger
    if not ledger:
        raise BundleError(f"{str(bundle)!r} has no ledger; pass a bundle that rap-calibrate wrote.")
    found = [entry for entry in ledger if layer in _names(entry)]
    if not found:
        raise BundleError(f"There is no layer {layer!r} in {str(bundle)!r}; {_near(ledger, layer)}.")
    return "\n\n".join(_describe(entry) for entry in found)


def _names(entry: _Entry) -> tuple[str, ...]:
    graph, node = entry.graph, entry.node
    module = node.rpartition("/")[0] or node
    return node, module, f"{graph}:{node}", f"{graph}:{module}"


def _near(ledger: Sequence[_Entry], layer: str) -> str:
    names = {name: _names(entry)[1] for entry in ledger for name in _names(entry)}
    near = difflib.get_close_matches(layer, names, n=4 * _NEAR, cutoff=0.5)
    near += [name for name in names if layer and layer in name]
    modules = list(dict.fromkeys(names[name] for name in near))[:_NEAR]
    if not modules:
        return f"the report of the bundle lists all {len(ledger)}"
    return "near are " + " and ".join(repr(name) for name in modules)


def _describe(entry: _Entry) -> str:
    lines = [
        f"{entry.graph}: {entry.node} ({entry.op})",
        f"precision    {entry.decision}",
        f"reason       {entry.reason}",
    ]
    if (sensitivity := entry.sensitivity_db) is not None:
        lines.append(f"sensitivity  {sensitivity:.1f} dB is the PSNR of the roll-out with this layer alone in 8 bits")
    if entry.milliseconds_saved is not None:
        how = "measured" if entry.measured else "by the cost model"
        lines.append(f"time         {entry.milliseconds_saved:.3f} ms saved per chunk in 8 bits, {how}")
    if entry.smoothed:
        lines.append("smoothing    its input is smoothed")
    lines.append(f"observer     {entry.observer}")
    return "\n".join(lines)
