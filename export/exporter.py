"""From networks to a bundle: capture, passes, precision, reference, parity, golden clip, manifest.

Weights are held once in fp32 until the reference has run; graphs are converted while they are written. The networks
are let go before ONNX Runtime loads the graphs, so the peak is the larger of the two, not their sum.
"""

from __future__ import annotations

import gc
import io
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass
from torch import nn

from rap_edge.models.networks import Networks
from rap_edge.runtime.bundle import GraphInfo, Manifest
from rap_edge.runtime.contract import FREE_FRAMES, FREE_LATENTS, contract
from rap_edge.runtime.engine import Engine
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.onnxruntime_engine import OnnxRuntimeEngine
from rap_edge.runtime.spec import ModelSpec

from .activations import ActivationPeaks, Peak
from .channels_last import channels_last_norm, channels_last_shuffle
from .conv3d import conv3d_to_conv2d
from .flops import chunk_flops, count_flops
from .graphs import OPSET, GraphSource, capture, graph_sources
from .hybrid_attention import carry_definition
from .inputs import RealInputs, png, write_wave
from .movement import merge_movement
from .parity import (
    GATES,
    ROLLOUT_SEED,
    Case,
    Figures,
    Gate,
    Recorder,
    check_graph,
    check_rollout,
    compare,
    roll_out,
    run_rollout,
)
from .precision import FP16_MAX, Island, check_finite, to_fp16
from .source import NetworkSource
from .stages import Stages
from .torch_engine import torch_engines
from .writer import EXTERNAL_DATA_LIMIT, BundleWriter, new_bundle, require_space

ROLLOUT_CHUNKS, FEWEST_CHUNKS = 8, 2
ROLLOUT_BUDGET_SECONDS = 600.0
GOLDEN_SECONDS = 3.0
GOLDEN_FRAMES = 8

Pass = Callable[[ir.Model], int]
PASSES: Mapping[str, Pass] = MappingProxyType(
    {
        "conv3d_to_conv2d": conv3d_to_conv2d,
        "channels_last_shuffle": channels_last_shuffle,
        "channels_last_norm": channels_last_norm,
        "merge_movement": merge_movement,
    }
)
# All of them are for CPUs; TensorRT has kernels and layouts of its own for what they replace.
DEFAULT_PASSES: Mapping[str, tuple[str, ...]] = MappingProxyType({"fp32": tuple(PASSES), "fp16": ()})


@dataclass(frozen=True)
class ExportSettings:
    """Choices of an export that are not the model's.

    Attributes:
        precision: "fp32" or "fp16".
        chunks: chunks of the roll-out.
        passes: names of `PASSES` to apply; None takes the precision's default.
        gate: what the graphs must reach; None takes the precision's default.
        data_limit: bytes of weights above which a graph keeps them in a file beside it.
        budget_seconds: the roll-out is shortened, down to `FEWEST_CHUNKS`, if it would take longer.
        threads: threads of ONNX Runtime in the check; None takes every core.
    """

    precision: str = "fp32"
    chunks: int = ROLLOUT_CHUNKS
    passes: tuple[str, ...] | None = None
    gate: Gate | None = None
    data_limit: int = EXTERNAL_DATA_LIMIT
    budget_seconds: float = ROLLOUT_BUDGET_SECONDS
    threads: int | None = None


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
        max_abs: largest difference from PyTorch on recorded inputs.
        psnr: least PSNR in dB.
    """

    nodes: int
    parameters: int
    bytes: int
    flops: int
    islands: int
    rewritten: Mapping[str, int]
    max_abs: float
    psnr: float


@dataclass(frozen=True)
class ExportReport:
    """What an export did; `--json` prints it."""

    bundle: str
    spec: str
    precision: str
    seconds: float
    peak_memory_bytes: int
    chunk_flops: int
    graphs: Mapping[str, GraphReport]
    rollout: Mapping[str, Any]


@dataclass(frozen=True)
class _Written:
    info: GraphInfo
    report: GraphReport
    islands: tuple[Island, ...]


@dataclass
class _Reference:
    """What PyTorch computed: recorded runs, the roll-out's frames, and in fp16 the largest activations."""

    chunks: int
    cases: dict[str, list[Case]]
    peaks: dict[str, Peak]
    frames: list[NDArray[np.uint8]]
    seconds: float
    why_fewer: str = ""


@dataclass
class _Held:
    """The networks, so that one place can let go of them."""

    networks: Networks | None = None
    sources: dict[str, GraphSource] = field(default_factory=dict)

    def release(self) -> None:
        self.networks = None
        self.sources.clear()
        gc.collect()


def export_bundle(
    source: NetworkSource,
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
    assert held.networks is not None
    spec = held.networks.spec
    folder = target or Path("build") / f"{spec.name}-{settings.precision}"
    inputs = make_inputs(spec)
    _round_weights(held.networks, settings.precision)
    held.sources = graph_sources(held.networks)
    require_space(folder, sum(s.parameters for s in held.sources.values()) * (2 if settings.precision == "fp16" else 4))
    with new_bundle(folder) as writer:
        written = _write_graphs(held.sources, spec, settings, writer, stages)
        reference = _run_reference(held, spec, settings, inputs, written, stages)
        held.release()
        parity, written = _check(spec, settings, inputs, written, reference, writer, stages)
        golden = _write_golden(spec, inputs, reference, parity, writer)
        with stages.stage("hashes", 1.0):
            manifest = Manifest(
                spec=spec,
                precision=settings.precision,
                graphs={name: item.info for name, item in written.items()},
                files=writer.hashes(),
                provenance=source.provenance() | _versions() | {"passes": list(_passes(settings))},
                islands=tuple(island.to_dict() for item in written.values() for island in item.islands),
                parity=parity,
                golden=golden,
            )
            writer.commit(manifest)
    return ExportReport(
        bundle=str(folder),
        spec=spec.name,
        precision=settings.precision,
        seconds=time.monotonic() - started,
        peak_memory_bytes=_peak_memory(),
        chunk_flops=chunk_flops(spec, {name: item.info.flops for name, item in written.items()}),
        graphs={name: item.report for name, item in written.items()},
        rollout=parity["rollout"],
    )


def _write_graphs(
    sources: Mapping[str, GraphSource],
    spec: ModelSpec,
    settings: ExportSettings,
    writer: BundleWriter,
    stages: Stages,
) -> dict[str, _Written]:
    written = {}
    weights = {name: source.parameters + 1_000_000 for name, source in sources.items()}
    with stages.stage("graphs", sum(weights.values()) / 1e6, "M weights") as progress:
        for name, source in sources.items():
            progress.note(name)
            written[name] = write_graph(source, spec, settings, writer)
            progress.advance(weights[name] / 1e6)
            gc.collect()
    return written


def write_graph(source: GraphSource, spec: ModelSpec, settings: ExportSettings, writer: BundleWriter) -> _Written:
    """Capture one graph, transform it and write it into the bundle; raises `ExportError`."""
    model = capture(source, spec)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    rewritten = {}
    for name in _passes(settings):
        rewritten[name] = PASSES[name](model)
        ShapeInferencePass()(model)
    parameters = sum(
        int(np.prod(value.const_value.shape.numpy()))
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT
    )
    inputs, outputs = contract(spec, "float16" if settings.precision == "fp16" else "float32")[source.name]
    islands: tuple[Island, ...] = ()
    if settings.precision == "fp16":
        islands = to_fp16(model, {tensor.name: tensor.dtype for tensor in (*inputs, *outputs)})
    carry_definition(model)
    file, data = writer.save_graph(model, source.name, settings.data_limit)
    sizes = {FREE_FRAMES: spec.chunk_frames, FREE_LATENTS: spec.chunk_latents}
    flops = count_flops(onnx.load(writer.root / file, load_external_data=False), sizes)
    size = sum((writer.root / part).stat().st_size for part in (file, *data))
    return _Written(
        GraphInfo(file, inputs, outputs, data, flops),
        GraphReport(len(list(model.graph)), parameters, size, flops, len(islands), rewritten, 0.0, 0.0),
        islands,
    )


def _run_reference(
    held: _Held,
    spec: ModelSpec,
    settings: ExportSettings,
    inputs: RealInputs,
    written: Mapping[str, _Written],
    stages: Stages,
) -> _Reference:
    assert held.networks is not None
    chunks, why = _affordable_chunks(spec, settings, written)
    recorder, peaks = Recorder(), ActivationPeaks()
    started = time.monotonic()
    with stages.stage("PyTorch roll-out", chunks + 1, "chunks") as progress:

        def before(index: int) -> None:
            recorder.active = index in (-1, chunks - 1)
            if index >= 0:
                progress.advance(1)

        engines = torch_engines(held.networks)
        watched = {name: engine.module for name, engine in engines.items()} if _is_half(settings) else {}
        with peaks.watch(watched):
            frames = roll_out(spec, recorder.watch(engines), inputs, chunks, before_chunk=before)
    peaks.require_half()
    return _Reference(chunks, recorder.cases, peaks.peaks, frames, time.monotonic() - started, why)


def _check(
    spec: ModelSpec,
    settings: ExportSettings,
    inputs: RealInputs,
    written: Mapping[str, _Written],
    reference: _Reference,
    writer: BundleWriter,
    stages: Stages,
) -> tuple[dict[str, Any], dict[str, _Written]]:
    gate = settings.gate or GATES[settings.precision]
    engines: dict[str, Engine] = {}
    reports = {}
    work = {name: item.info.flops / 1e9 for name, item in written.items()}
    with stages.stage("parity per graph", sum(work.values()), "GFLOP") as progress:
        for name, item in written.items():
            progress.note(name)
            engines[name] = OnnxRuntimeEngine(name, item.info, writer.root / item.info.file, settings.threads)
            figures = check_graph(name, engines[name], reference.cases[name], gate)
            reports[name] = replace(item, report=replace(item.report, max_abs=figures.max_abs, psnr=figures.psnr))
            progress.advance(work[name])
    reference.cases.clear()
    started = time.monotonic()
    with stages.stage("ONNX Runtime roll-out", reference.chunks + 1, "chunks") as progress:
        frames = run_rollout(
            spec, engines, inputs, reference.chunks, lambda index: progress.advance(1 if index >= 0 else 0)
        )
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
        "against": f"torch {torch.__version__} fp32" + (" on weights rounded to fp16" if _is_half(settings) else ""),
        "gate": asdict(gate),
        "graphs": {name: Figures(item.report.max_abs, item.report.psnr).to_dict() for name, item in reports.items()},
        "rollout": rollout,
    }
    if reference.peaks:
        parity["largest_activations"] = {name: asdict(peak) for name, peak in reference.peaks.items()}
    golden = frames[: _golden_chunks(spec, reference.chunks)]
    parity["golden_psnr"] = compare(np.concatenate(reference.frames[: len(golden)]), np.concatenate(golden)).psnr
    return parity, reports


def _write_golden(
    spec: ModelSpec,
    inputs: RealInputs,
    reference: _Reference,
    parity: dict[str, Any],
    writer: BundleWriter,
) -> dict[str, Any]:
    chunks = _golden_chunks(spec, reference.chunks)
    frames = np.concatenate(reference.frames[:chunks])
    indices = np.unique(np.linspace(0, len(frames) - 1, GOLDEN_FRAMES).round().astype(np.int64))
    packed = io.BytesIO()
    np.savez_compressed(packed, frames=frames[indices], indices=indices)
    audio = np.resize(inputs.speech, chunks * spec.chunk_samples)
    portrait = writer.add("golden/portrait.png", png(inputs.portrait))
    write_wave(writer.root / "golden" / "speech.wav", audio, spec.sample_rate)
    return {
        "portrait": portrait,
        "audio": "golden/speech.wav",
        "frames": writer.add("golden/frames.npz", packed.getvalue()),
        "seed": ROLLOUT_SEED,
        "psnr": parity.pop("golden_psnr"),
    }


def _golden_chunks(spec: ModelSpec, chunks: int) -> int:
    return min(chunks, max(1, round(GOLDEN_SECONDS / spec.chunk_seconds)))


def _affordable_chunks(spec: ModelSpec, settings: ExportSettings, written: Mapping[str, _Written]) -> tuple[int, str]:
    """Chunks of the roll-out, and why they are fewer than asked for."""
    work = chunk_flops(spec, {name: item.info.flops for name, item in written.items()})
    # Eager PyTorch and ONNX Runtime each sustain about half of the matrix product's speed here.
    seconds = 4.0 * work / _gemm_flops_per_second()
    chunks = int(min(settings.chunks, max(FEWEST_CHUNKS, settings.budget_seconds // seconds)))
    if chunks >= settings.chunks:
        return settings.chunks, ""
    return chunks, (
        f"{chunks} chunks instead of {settings.chunks}: a chunk is {work / 1e12:.1f} TFLOP, so {settings.chunks} would "
        f"take about {settings.chunks * seconds / 60:.0f} minutes on this machine"
    )


def _gemm_flops_per_second(size: int = 512) -> float:
    matrix = torch.ones(size, size)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def _round_weights(networks: Networks, precision: str) -> None:
    """Check every weight, and round it to fp16 if that is what the graphs will hold, so that both compute the same."""
    with torch.no_grad():
        for network in (networks.dit, networks.vae, networks.audio_encoder):
            assert isinstance(network, nn.Module)
            for name, parameter in network.named_parameters():
                check_finite(name, parameter.numpy())
                if precision == "fp16" and float(parameter.abs().amax()) <= FP16_MAX:
                    parameter.copy_(parameter.half().float())


def _passes(settings: ExportSettings) -> Sequence[str]:
    names = DEFAULT_PASSES[settings.precision] if settings.passes is None else settings.passes
    if unknown := [name for name in names if name not in PASSES]:
        raise ExportError(f"There is no pass {unknown[0]!r}; choose among {', '.join(PASSES)}.")
    return names


def _is_half(settings: ExportSettings) -> bool:
    return settings.precision == "fp16"


def _versions() -> dict[str, Any]:
    found = {}
    for package in ("rap-edge", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return {
        "versions": found | {"python": platform.python_version()},
        "opset": OPSET,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _peak_memory() -> int:
    """Largest resident size of this process so far in bytes, 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak
