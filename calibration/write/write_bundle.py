"""Writing the calibrated bundle: graphs, golden clip, parity, report and manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rap_edge.export.bundle_writer import BundleWriter
from rap_edge.export.parity.check_inputs import RealInputs, golden_inputs, to_int16
from rap_edge.export.parity.compare import compare, roll_out
from rap_edge.export.provenance import installed_versions, now
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.golden import read_frames
from rap_edge.runtime.bundle.manifest import GoldenInfo, GraphInfo, Manifest
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from rap_edge.runtime.errors import CalibrationError

from ..choose.observer import sample_cases
from ..judge.quality import Bytes
from ..quantize.variants import build, nodes_of
from ..record.running import outputs_of
from ..steps.context import Context
from ..steps.half import half_frames
from .html import Pictures, render_report
from .results import Calibration

REPORT, RANGES = "calibration/report.html", "calibration/ranges.json"
_SHOWN = 4
_SHOWN_CHUNKS = 3


def write_bundle(context: Context, result: Calibration, reference: Bytes, writer: BundleWriter) -> None:
    """Write everything and commit.

    Args:
        context: the calibration.
        result: what it found.
        reference: fp32 frames of the gates' roll-out.
        writer: of the new bundle.

    Raises:
        CalibrationError: a written graph differs from the one that was judged.
    """
    manifest = context.bundle.manifest
    with context.stages.stage("bundle", 4, "parts") as progress:
        progress.note("graphs")
        graphs = _write_graphs(context, result, writer)
        engines = {
            name: OnnxRuntimeEngine(name, info, writer.root / info.file, context.settings.threads)
            for name, info in graphs.items()
        }
        progress.advance(1)
        progress.note("golden clip")
        golden = _write_golden(context.bundle, engines, writer)
        for inside in manifest.portraits.values():
            writer.add(inside, context.bundle.read(inside))
        progress.advance(1)
        progress.note("parity")
        parity = _parity(context, result, engines)
        progress.advance(1)
        progress.note("report")
        half = half_frames(context, _SHOWN_CHUNKS)
        pictures = _pictures(context, result, reference, half)
        writer.add(REPORT, render_report(result, context.plans, pictures).encode())
        writer.add(RANGES, json.dumps(_ranges(context), indent=1).encode())
        progress.advance(1)
    writer.commit(
        Manifest(
            spec=manifest.spec,
            precision=result.precision,
            graphs=graphs,
            files=writer.hashes(),
            provenance=dict(manifest.provenance) | {"calibrated": _origin(manifest)},
            islands=manifest.islands,
            parity=parity,
            golden=golden,
            portraits=manifest.portraits,
            calibration=result.to_dict() | {"report": REPORT, "ranges": RANGES},
        )
    )


def _write_graphs(context: Context, result: Calibration, writer: BundleWriter) -> dict[str, GraphInfo]:
    chosen = set(result.found.chosen)
    graphs = {}
    for name, info in context.bundle.manifest.graphs.items():
        nodes = nodes_of(context.plans[name].layers, chosen)
        if nodes:
            file, data = writer.save_graph(build(context.plans[name], nodes, context.target), name)
            graphs[name] = replace(info, file=file, data=data)
            continue
        for inside in context.bundle.graph_files(name):
            (writer.root / inside).parent.mkdir(parents=True, exist_ok=True)
            with context.bundle.mapped(inside) as content:
                (writer.root / inside).write_bytes(content)
        graphs[name] = info
    return graphs


def _write_golden(bundle: Bundle, engines: Mapping[str, Engine], writer: BundleWriter) -> GoldenInfo:
    """Copy the clip of the self-test, with the PSNR that the calibrated graphs reach against its frames."""
    golden, spec = bundle.manifest.golden, bundle.manifest.spec
    for inside in golden.files:
        writer.add(inside, bundle.read(inside))
    if golden.portrait is None or golden.audio is None or golden.frames is None:
        return golden
    portrait, waveform = golden_inputs(bundle)
    speech = to_int16(waveform)
    expected, indices = read_frames(bundle.read(golden.frames), spec)
    chunks = int(indices.max()) // spec.new_frames + 1
    frames = np.concatenate(list(roll_out(spec, engines, RealInputs(portrait, speech, "golden"), chunks)))
    return replace(golden, psnr=compare(expected, frames[indices]).psnr)


def _parity(context: Context, result: Calibration, engines: Mapping[str, Engine]) -> dict[str, Any]:
    """Figures of every graph against the base's on recorded inputs, and those of the gates' roll-out."""
    graphs = {}
    for name, engine in engines.items():
        cases = sample_cases(result.recorded, name, 2)
        pairs = zip(
            outputs_of(context.spec, context.base[name], cases),
            outputs_of(context.spec, engine, cases),
            strict=True,
        )
        figures = [compare(expected[key], got[key]) for expected, got in pairs for key in expected]
        if not figures:
            continue
        graphs[name] = {"max_abs": max(f.max_abs for f in figures), "psnr": min(f.psnr for f in figures)}
        if not np.isfinite(graphs[name]["psnr"]):
            raise CalibrationError(f"Graph {name!r} gives NaN or Inf in {result.precision}; keep the bundle as it is.")
    return {
        "against": result.against,
        "graphs": graphs,
        "rollout": {
            "seconds": context.settings.amounts.long_seconds,
            **{name: figure.value for name, figure in result.figures.items() if name != "speedup"},
        },
    }


def _pictures(context: Context, result: Calibration, reference: Bytes, half: Bytes | None) -> Pictures:
    first = min(_SHOWN_CHUNKS * context.spec.new_frames, len(reference))
    shown = np.linspace(first // 4, first - 1, _SHOWN).astype(int)
    return Pictures(
        indices=tuple(int(index) for index in shown),
        fps=context.spec.fps,
        fp32=reference[shown],
        fp16=None if half is None else half[shown],
        calibrated=result.frames[shown],
    )


def _ranges(context: Context) -> dict[str, Any]:
    return {
        name: {
            "observer": plan.observer,
            "smoothed": list(plan.smoothed),
            "activations": {
                value: {
                    "extent": [plan.extents[value].low, plan.extents[value].high],
                    "largest": activation.histogram.largest,
                    "levels": [[level, largest] for level, largest in activation.levels.items()],
                    "level_ratio": activation.level_ratio,
                    "channel_ratio": activation.channel_ratio,
                }
                for value, activation in plan.activations.items()
            },
        }
        for name, plan in context.plans.items()
        if plan.activations
    }


def _origin(manifest: Manifest) -> dict[str, Any]:
    return {
        "versions": installed_versions(),
        "date": now(),
        "from": {name: manifest.files[graph.file].sha256 for name, graph in manifest.graphs.items()},
    }
