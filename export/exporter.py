"""From networks to a bundle: reference, capture, passes, precision, parity, golden clip, manifest.

Weights are held once, in fp32; graphs are converted while they are written. The networks are let go before ONNX
Runtime loads the graphs, so the peak is the larger of the two, not their sum.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from rap_edge.runtime.bundle.contract import FREE_SAMPLES, chunk_sizes, contract, runs_per_chunk, sound_sizes
from rap_edge.runtime.bundle.manifest import GoldenInfo, GraphInfo, Island, Manifest, PortraitFigures, WorkingMemory
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from rap_edge.runtime.errors import ExportError, NumericalError
from rap_edge.runtime.reports.run_report import peak_rss_mb
from rap_edge.runtime.spec import AudioEncodeMode, ModelSpec

from .bundle_writer import EXTERNAL_DATA_LIMIT, BundleWriter, new_bundle, require_space
from .capture.five_graphs import OPSET, GraphSource, capture, graph_sources
from .capture.flops import chunk_flops, count_flops
from .capture.own_model import AnyNetworks
from .capture.recognition import Recognition, recognise
from .capture.unrun import unrun_bytes, unrun_flops
from .hybrid_attention.onnx_function import carry_definition
from .parity.check_inputs import RealInputs
from .parity.compare import (
    GATES,
    ROLLOUT_SEED,
    Figures,
    Gate,
    Recorder,
    check_graph,
    check_rollout,
    compare,
    roll_out,
)
from .parity.torch_rollout import Reference, golden_chunks, run_reference, write_golden
from .passes.registry import GraphPass, choose_passes
from .plans.choice import EngineChoice
from .plans.make_plans import PlansReport, build_plans, with_plans
from .precision.activations import Peaks
from .precision.rules import FP16_MAX, RULES, ActivationRange, check_finite
from .precision.to_fp16 import to_fp16
from .provenance import installed_versions, now
from .sources.portraits import known_portraits, portrait_gates
from .stages import Stages

ROLLOUT_CHUNKS = 8
ROLLOUT_BUDGET_SECONDS = 600.0
# Of sound that is encoded at once: its memory in between lies below the straight line, and none is longer.
_HEARD_MINUTES = (1, 4, 16, 64)


@dataclass(frozen=True)
class ExportSettings:
    """Choices of an export that are not the model's.

    Attributes:
        precision: `FP32` or `FP16`.
        chunks: chunks of the roll-out.
        passes: names of graph passes to apply; None takes the precision's default.
        gate: what the graphs must reach; None takes the precision's default.
        data_limit: bytes of weights above which a graph keeps them in a file beside it.
        budget_seconds: the roll-out is shortened, down to two chunks, if it would take longer.
        threads: threads of ONNX Runtime in the check; None takes every core.
        engines: plans to build once the graphs have been checked; None builds none.
        portraits: pictures that the model draws well, which the bundle offers and holds others to; () takes nano's.
        compared: whether the graphs are compared with PyTorch. Without, half precision is kept by rules alone, and
            there is no golden clip: for benchmarks, where the weights are random and the comparison takes minutes.
        audio_encode_mode: "once" makes an audio encoder for sound of any length.
    """

    precision: Precision = Precision.FP32
    chunks: int = ROLLOUT_CHUNKS
    passes: tuple[str, ...] | None = None
    gate: Gate | None = None
    data_limit: int = EXTERNAL_DATA_LIMIT
    budget_seconds: float = ROLLOUT_BUDGET_SECONDS
    threads: int | None = None
    engines: EngineChoice | None = None
    portraits: tuple[Path, ...] = ()
    compared: bool = True
    audio_encode_mode: AudioEncodeMode = "stream"

    @property
    def half(self) -> bool:
        """Whether the graphs compute in fp16."""
        return self.precision == Precision.FP16


@dataclass(frozen=True)
class GraphReport:
    """What became of one graph.

    Attributes:
        nodes: operators.
        parameters: weights.
        bytes: size with its weights.
        flops: operations of one run.
        islands: nodes kept in fp32.
        rewritten: nodes that each pass replaced.
        recognition: what its attention has become.
        max_abs: largest difference from PyTorch on recorded inputs, None if nothing was compared.
        psnr: least PSNR in dB, likewise.
    """

    nodes: int
    parameters: int
    bytes: int
    flops: int
    islands: int
    rewritten: Mapping[str, int]
    recognition: Recognition
    max_abs: float | None
    psnr: float | None


@dataclass(frozen=True)
class ExportReport:
    """What an export did; `--json` prints it. `rollout` is None if nothing was compared."""

    bundle: str
    spec: str
    precision: str
    seconds: float
    peak_memory_bytes: int
    chunk_flops: int
    graphs: Mapping[str, GraphReport]
    rollout: Mapping[str, Any] | None
    engines: PlansReport | None = None


class Source(Protocol):
    """Where an export's networks come from."""

    def load(self) -> AnyNetworks:
        """The networks, in fp32 and eval mode."""

    def provenance(self) -> dict[str, Any]:
        """The manifest's record of this source."""


@dataclass(frozen=True)
class _Written:
    info: GraphInfo
    report: GraphReport
    islands: tuple[Island, ...]


@dataclass
class _Held:
    """The networks, so that one place can let go of them."""

    networks: AnyNetworks | None = None
    sources: dict[str, GraphSource] = field(default_factory=dict)

    def release(self) -> None:
        self.networks = None
        self.sources.clear()
        gc.collect()


def export_bundle(
    source: Source,
    target: Path | None,
    settings: ExportSettings,
    make_inputs: Callable[[ModelSpec], RealInputs],
    stages: Stages,
) -> ExportReport:
    """Export a model.

    Args:
        source: gives the networks.
        target: the bundle's folder; None takes `build/<spec>-<precision>`.
        settings: precision and limits.
        make_inputs: gives the portrait and the speech of the check.
        stages: is told what is being done.

    Raises:
        ExportError: a graph cannot be captured, or differs from PyTorch; names the graph and the figure.
        CheckpointError: the checkpoint cannot be read.
        OutputError: the folder cannot be written.
    """
    started = time.monotonic()
    with stages.stage("weights", 1.0):
        held = _Held(source.load())
    assert held.networks is not None  # it is let go of below
    spec = held.networks.spec
    folder = target or Path("build") / f"{spec.name}-{settings.precision}"
    inputs = make_inputs(spec) if settings.compared else None
    known = known_portraits(spec, settings.portraits)
    _round_weights(held.networks, half=settings.half)
    held.sources = graph_sources(held.networks, settings.audio_encode_mode)
    copies = 2 if settings.engines is not None else 1
    require_space(folder, copies * sum(s.parameters for s in held.sources.values()) * settings.precision.width)
    with new_bundle(folder) as writer:
        limits = (settings.chunks, settings.budget_seconds)
        reference = None
        if inputs is not None:
            mode = settings.audio_encode_mode
            reference = run_reference(held.networks, inputs, limits, stages, watch=settings.half, mode=mode)
        written = _write_graphs(held, spec, settings, {} if reference is None else reference.peaks, writer, stages)
        parity: dict[str, Any] = {"compared": False}
        golden = GoldenInfo()
        if inputs is not None and reference is not None:
            parity, written = _check(spec, settings, inputs, written, reference, writer, stages)
            golden = write_golden(spec, inputs, reference, parity.pop("golden_psnr"), writer)
        portraits = {Path(name).stem: writer.add(f"portraits/{name}", data) for name, data in known.items()}
        gates = _portrait_gates(spec, settings, written, known.values(), writer, stages)
        with stages.stage("hashes", 1.0):
            manifest = Manifest(
                spec=spec,
                precision=settings.precision,
                graphs={name: item.info for name, item in written.items()},
                files=writer.hashes(),
                provenance=source.provenance()
                | {"versions": installed_versions(), "opset": OPSET, "exported": now()}
                | {"passes": [item.name for item in _passes(settings)]},
                islands=tuple(island for item in written.values() for island in item.islands),
                parity=parity,
                golden=golden,
                portrait_gates=gates,
                portraits=portraits,
            )
        plans = None
        if settings.engines is not None:
            plans = build_plans(writer.root, manifest, settings.engines, stages, str(folder))
            manifest = with_plans(manifest, plans)
        writer.commit(manifest)
    return ExportReport(
        bundle=str(folder),
        spec=spec.name,
        precision=settings.precision,
        seconds=time.monotonic() - started,
        peak_memory_bytes=round((peak_rss_mb() or 0.0) * 2**20),
        chunk_flops=chunk_flops(spec, {name: item.info.flops for name, item in written.items()}),
        graphs={name: item.report for name, item in written.items()},
        rollout=parity.get("rollout"),
        engines=None if plans is None else plans.report,
    )


def _portrait_gates(
    spec: ModelSpec,
    settings: ExportSettings,
    written: Mapping[str, _Written],
    known: Collection[bytes],
    writer: BundleWriter,
    stages: Stages,
) -> PortraitFigures | None:
    if not known:
        return None
    with stages.stage("portraits", len(known), "portraits") as progress:
        engines = {
            name: OnnxRuntimeEngine(
                name, written[name].info, writer.root / written[name].info.file, settings.threads, keeps_memory=False
            )
            for name in ("vae_encoder", "vae_decoder")
        }
        return portrait_gates(spec, engines, known, lambda: progress.advance(1))


def _write_graphs(
    held: _Held,
    spec: ModelSpec,
    settings: ExportSettings,
    peaks: Mapping[str, Peaks],
    writer: BundleWriter,
    stages: Stages,
) -> dict[str, _Written]:
    written = {}
    weights = {name: source.parameters / 1e6 + 1.0 for name, source in held.sources.items()}
    with stages.stage("graphs", sum(weights.values()), "M weights") as progress:
        for name, weight in weights.items():
            progress.note(name)
            written[name] = write_graph(held.sources[name], spec, settings, writer, peaks.get(name))
            progress.advance(weight)
            gc.collect()
    held.release()
    return written


def write_graph(
    source: GraphSource,
    spec: ModelSpec,
    settings: ExportSettings,
    writer: BundleWriter,
    peaks: Peaks | None = None,
) -> _Written:
    """Capture one graph, transform it and write it into the bundle; raises `ExportError`.

    `peaks` are the activations that half precision has to hold.
    """
    model = capture(source, spec)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    recognition = recognise(model, spec)
    rewritten = {}
    for item in _passes(settings):
        rewritten[item.name] = item.rewrite(model)
        ShapeInferencePass()(model)
    parameters = sum(
        int(np.prod(value.const_value.shape.numpy()))
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT
    )
    inputs, outputs = contract(spec, settings.precision.state_dtype, settings.audio_encode_mode)[source.name]
    islands: tuple[Island, ...] = ()
    if settings.half:
        seen = () if peaks is None else (ActivationRange(peaks.inputs, peaks.outputs),)
        islands = to_fp16(model, {tensor.name: tensor.dtype for tensor in (*inputs, *outputs)}, (*RULES, *seen))
    carry_definition(model)
    file, data = writer.save_graph(model, source.name, settings.data_limit)
    sizes = chunk_sizes(spec)
    any_length = FREE_SAMPLES in source.inputs[0].shape
    # Shapes that follow from the sound's length are computed in the graph, so that they are not known before it runs.
    flops = (
        unrun_flops(source.module, (1, sizes[FREE_SAMPLES]))
        if any_length
        else count_flops(onnx.load(writer.root / file, load_external_data=False), sizes)
    )
    size = sum((writer.root / part).stat().st_size for part in (file, *data))
    return _Written(
        GraphInfo(file, inputs, outputs, data, flops, _memory(source, spec) if any_length else ()),
        GraphReport(len(list(model.graph)), parameters, size, flops, len(islands), rewritten, recognition, None, None),
        islands,
    )


def _memory(source: GraphSource, spec: ModelSpec) -> tuple[WorkingMemory, ...]:
    """What an audio encoder takes for sound of any length."""
    heard = [round(minutes * 60 * spec.fps) for minutes in _HEARD_MINUTES]
    sizes = ((frames, sound_sizes(spec, frames)[FREE_SAMPLES]) for frames in heard)
    return tuple(WorkingMemory(frames, unrun_bytes(source.module, (1, samples))) for frames, samples in sizes)


def _check(
    spec: ModelSpec,
    settings: ExportSettings,
    inputs: RealInputs,
    written: Mapping[str, _Written],
    reference: Reference,
    writer: BundleWriter,
    stages: Stages,
) -> tuple[dict[str, Any], dict[str, _Written]]:
    gate = settings.gate or GATES[settings.precision]
    engines: dict[str, Engine] = {}
    reports, found = {}, dict[str, Figures]()
    work = {name: item.info.flops / 1e9 for name, item in written.items()}
    with stages.stage("parity per graph", sum(work.values()), "GFLOP") as progress:
        for name, item in written.items():
            progress.note(name)
            # Five graphs that each keep their peak would not fit beside their weights.
            engines[name] = OnnxRuntimeEngine(
                name, item.info, writer.root / item.info.file, settings.threads, keeps_memory=False
            )
            found[name] = figures = check_graph(name, engines[name], reference.cases[name], gate)
            reports[name] = replace(item, report=replace(item.report, max_abs=figures.max_abs, psnr=figures.psnr))
            progress.advance(work[name])
    reference.cases.clear()
    started = time.monotonic()
    frames: list[NDArray[np.uint8]] = []
    runs = reference.chunks * sum(runs_per_chunk(spec).values()) + 1
    with stages.stage("ONNX Runtime roll-out", runs, "runs") as progress:
        counter = Recorder(on_run=lambda: progress.advance(1))
        try:
            frames += roll_out(spec, counter.watch(engines), inputs, reference.chunks)
        except NumericalError as error:
            raise ExportError(f"The roll-out of the exported graphs failed: {error}") from error
    worst, per_chunk = check_rollout(reference.frames, frames, gate)
    rollout: dict[str, Any] = {
        "chunks": reference.chunks,
        "seed": ROLLOUT_SEED,
        "inputs": inputs.origin,
        **worst.to_dict(),
        "psnr_per_chunk": per_chunk,
        "pytorch_seconds": reference.seconds,
        "onnxruntime_seconds": time.monotonic() - started,
    }
    if reference.why_fewer:
        rollout["note"] = reference.why_fewer
    parity: dict[str, Any] = {
        "against": f"torch {torch.__version__} fp32" + (" on weights rounded to fp16" if settings.half else ""),
        "gate": asdict(gate),
        "graphs": {name: figures.to_dict() for name, figures in found.items()},
        "rollout": rollout,
    }
    if reference.peaks:
        parity["largest_activations"] = {name: peaks.largest() for name, peaks in reference.peaks.items()}
    golden = frames[: golden_chunks(spec, reference.chunks)]
    parity["golden_psnr"] = compare(np.concatenate(reference.frames[: len(golden)]), np.concatenate(golden)).psnr
    return parity, reports


def _round_weights(networks: AnyNetworks, *, half: bool) -> None:
    """Check every weight, and round it to fp16 if that is what the graphs will hold, so that both compute the same."""
    with torch.no_grad():
        for network in networks.modules:
            for name, parameter in network.named_parameters():
                check_finite(name, parameter.numpy())
                if half and float(parameter.abs().amax()) <= FP16_MAX:
                    parameter.copy_(parameter.half().float())


def _passes(settings: ExportSettings) -> tuple[GraphPass, ...]:
    return choose_passes(settings.passes, settings.precision.pays_on)
