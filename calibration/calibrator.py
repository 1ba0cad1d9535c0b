"""From a bundle to a calibrated one: record, observe, smooth, time, search, judge, write.

Every finished step is in a journal in the work folder, keyed by what it was made from: work that was cut off goes on
where it stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from rap_edge.export.bundle_writer import new_bundle, refuse_to_replace
from rap_edge.export.stages import Stages
from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.contract import check_contract
from rap_edge.runtime.bundle.journal import Journal, key_of
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.engines.onnxruntime_engine import cpu_name, load_engines
from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.machine.available import available_cores

from .choose.search import MARGINS
from .judge.gates import Figure, judge, require, speed_figure
from .judge.quality import Bytes, talk_chunks, talk_frames
from .judge.race import race
from .judge.reference import fp32_engines
from .quantize.variants import prepare
from .record.clips import Material, drawn_material, file_material
from .steps.choosing import find_layers, measure_damages, measure_gains
from .steps.context import Context, Settings
from .steps.observing import choose_observers, get_set, observe_ranges
from .targets import choose_target
from .write.ledger import Evidence, make_ledger
from .write.results import Calibration
from .write.write_bundle import write_bundle


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        bundle: folder of the bundle.
        precision: `INT8` or `FP8`.
        output: folder of the result; None takes `default_output`.
        audio: file or folder that replaces the shipped voices.
        recorded: folder of a set that was recorded before.
        checkpoint: folder that the bundle came from, the fp32 to judge an fp16 bundle's result by.
    """

    bundle: Path
    precision: Precision = Precision.INT8
    output: Path | None = None
    audio: Path | None = None
    recorded: Path | None = None
    checkpoint: Path | None = None


def default_output(name: str, base: Precision, precision: Precision) -> Path:
    """`build/<spec>-<precision>`; with the base's precision in between where that is not fp32."""
    return Path("build") / (f"{name}-{precision}" if base == Precision.FP32 else f"{name}-{base}-{precision}")


def calibrate(request: Request, settings: Settings, stages: Stages) -> Calibration:
    """Calibrate a bundle.

    Returns:
        What was done and reached; the result is a new bundle.

    Raises:
        BundleError: the bundle cannot be used, or a graph's hash does not match.
        CalibrationError: the data cannot be used, 8 bits win nothing, or a gate does not hold; nothing is written.
        OutputError: the folder cannot be written.
    """
    started = time.monotonic()
    bundle = Bundle.open(request.bundle)
    manifest = bundle.manifest
    check_contract(manifest)
    target = choose_target(request.precision, manifest.precision)
    output = request.output or default_output(manifest.spec.name, manifest.precision, request.precision)
    if output.exists() and output.samefile(request.bundle):
        raise OutputError(f"{str(output)!r} is the bundle itself; choose another folder for the result.")
    refuse_to_replace(output)
    for read in (request.audio, request.recorded):
        if read is not None and read.resolve().is_relative_to(output.resolve()):
            raise OutputError(f"{str(read)!r} lies in {str(output)!r}, which is replaced; choose another folder.")
    bundle.verify()
    work = output.with_name(f".{output.name}.calibration")
    audio = None if request.audio is None else _audio_hashes(request.audio)
    graphs = {name: manifest.files[graph.file].sha256 for name, graph in manifest.graphs.items()}
    key = key_of(
        manifest.spec.to_dict(),
        graphs,
        asdict(target),
        asdict(settings) | {"gates": None},
        audio,
        str(request.recorded),
    )
    with stages.stage("portraits and voices", 1.0):
        material = _material(request, bundle, settings)
    folder = work / key
    try:
        context = Context(
            bundle=bundle,
            target=target,
            material=material,
            settings=settings,
            work=folder,
            # Times are this machine's and this ONNX Runtime's.
            journal=Journal(folder / f"{key_of(cpu_name(), available_cores(), ort.__version__)}.jsonl"),
            stages=stages,
            base=load_engines(bundle, settings.threads),
            plans=prepare(bundle, target, folder / "graphs"),
        )
        result, reference = _run(context, request, output, started)
        with new_bundle(output) as writer:
            write_bundle(context, result, reference, writer)
    except OSError as error:
        raise OutputError(
            f"The work folder {str(folder)!r} cannot be written ({error.strerror or error}); free some space or choose "
            "another output folder."
        ) from error
    shutil.rmtree(folder / "graphs", ignore_errors=True)
    for frames in folder.glob("frames-*.npy"):
        frames.unlink()
    return result


def _run(context: Context, request: Request, output: Path, started: float) -> tuple[Calibration, Bytes]:
    recorded = get_set(context, request.recorded)
    observe_ranges(context, recorded)
    observers, smoothing = choose_observers(context)
    gains = measure_gains(context, recorded)
    damages = measure_damages(context, gains)
    reference, against = fp32_engines(context.bundle, context.base, request.checkpoint)
    # Small errors of a model that goes its own way grow with time, so a short clip may promise too much.
    for margin in MARGINS:
        found = find_layers(context, gains, damages, reference, margin)
        expected, frames, figures = _judge(context, found.chosen, reference)
        if all(figure.passed for figure in figures.values()):
            break
    speed = _race(context, found.chosen) if context.target.measured else None
    if speed is None:
        (chosen,) = (point for point in found.points if point.layers == len(found.chosen))
        ratio = 1.0 / chosen.time
    else:
        ratio = speed["cpu_ratio"]
    figures["speedup"] = speed_figure(ratio, context.settings.gates, measured=context.target.measured)
    require(figures)
    fewer = f"the roll-out then misses {context.settings.gates.psnr:g} dB to fp32 on the search's clip"
    evidence = Evidence(gains, damages, frozenset(found.chosen), frozenset(found.spare), fewer)
    result = Calibration(
        output=str(output),
        spec=context.spec.name,
        precision=request.precision,
        base=context.bundle.manifest.precision,
        target=context.target,
        against=against,
        recorded=recorded,
        observers=observers,
        smoothing=smoothing,
        ledger=make_ledger(context.plans, evidence, context.target, request.precision),
        found=found,
        figures=figures,
        speed=speed,
        hardware=hardware(),
        seconds=time.monotonic() - started,
        frames=frames,
    )
    return result, expected


def _judge(
    context: Context, chosen: tuple[str, ...], reference: Mapping[str, Engine]
) -> tuple[Bytes, Bytes, dict[str, Figure]]:
    talk, spec = context.material.long, context.spec
    chunks = talk_chunks(spec, talk)
    calibrated = context.variants.engines(chosen, context.base)
    with context.stages.stage("gates", 2, "roll-outs") as progress:
        expected = _kept(context, Precision.FP32, reference, chunks)
        progress.advance(1)
        frames = _kept(context, f"calibrated-{key_of(sorted(chosen))}", calibrated, chunks)
        progress.advance(1)
    return expected, frames, judge(frames, expected, talk, spec.fps, context.settings.gates)


def _kept(context: Context, name: str, engines: Mapping[str, Engine], chunks: int) -> Bytes:
    """Frames of the long clip, kept on disk for a run that goes on later."""
    path = context.work / f"frames-{name}.npy"
    if path.is_file():
        found: Bytes = np.load(path, allow_pickle=False)
        return found
    frames = talk_frames(context.spec, engines, context.material.long, chunks)
    part = path.with_suffix(".part.npy")
    np.save(part, frames)
    part.rename(path)
    return frames


def _race(context: Context, chosen: tuple[str, ...]) -> dict[str, Any]:
    threads = context.settings.threads or available_cores()
    chunks = context.settings.race_chunks

    def engines(count: int) -> tuple[Mapping[str, Engine], Mapping[str, Engine]]:
        base = context.single if count == 1 else context.base
        nodes = context.variants.with_threads(count)
        return base, nodes.engines(chosen, base)

    def run() -> dict[str, Any]:
        with context.stages.stage("time against the base", 2 * chunks, "chunks") as progress:
            return race(
                context.spec, engines, context.material.short, chunks, threads, lambda: progress.advance(1)
            ).to_dict()

    found: dict[str, Any] = context.journal.get(f"race {key_of(sorted(chosen))} {threads}", run)
    return found


def _material(request: Request, bundle: Bundle, settings: Settings) -> Material:
    spec = bundle.manifest.spec
    if request.audio is not None:
        return file_material(spec, request.audio, settings.amounts)
    return drawn_material(spec, settings.amounts)


def _audio_hashes(path: Path) -> list[str]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [f"{file.name} {hash_file(file).sha256}" for file in files if file.is_file()]


def hardware() -> dict[str, Any]:
    """The machine that times were measured on."""
    return {"cpu": cpu_name(), "cores": available_cores(), "onnxruntime": ort.__version__}
