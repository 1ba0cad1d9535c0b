"""The plans of a bundle: one per graph, built for its precision and believed before the manifest lists them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rap_edge.runtime.bundle.bundle import Bundle, hash_file
from rap_edge.runtime.bundle.contract import FREE_FRAMES, check_contract, chunk_sizes
from rap_edge.runtime.bundle.manifest import EngineInfo, FileInfo, Manifest, graph_hash
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.engines.interface import resolved_shape
from rap_edge.runtime.engines.preflight import platform_name
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine.tensorrt_modules import TENSORRT, VERSION_COMPATIBLE
from rap_edge.runtime.spec import ModelSpec

from ..bundle_writer import new_bundle, require_space
from ..hybrid_attention.ptx import HEAD_DIMS
from ..stages import Stages
from .choice import EngineChoice
from .job import PlanJob, PlanResult
from .process import build_plan
from .truth.claim import Claim, read_claim

# A plan repeats the weights and adds kernels; some graphs hold weights twice, in two layouts.
_SPACE_FACTOR, _KERNEL_BYTES = 1.5, 32 << 20


@dataclass(frozen=True)
class PlansReport:
    """What the building of a bundle's plans did.

    Attributes:
        bundle: the folder.
        backend: and `version`, of the builder.
        capabilities: compute capabilities that the plans run on.
        profile: name of the build profile.
        seconds: of all builds together.
        peak_memory_bytes: of the largest build, None where the system does not tell.
        graphs: by name.
    """

    bundle: str
    backend: str
    version: str
    capabilities: tuple[str, ...]
    profile: str
    seconds: float
    peak_memory_bytes: int | None
    graphs: Mapping[str, PlanResult]


@dataclass(frozen=True)
class Plans:
    """Built plans: for the manifest, and for the reader."""

    engines: Mapping[str, EngineInfo]
    files: Mapping[str, FileInfo]
    report: PlansReport


def build_plans(root: Path, manifest: Manifest, choice: EngineChoice, stages: Stages, name: str | None = None) -> Plans:
    """Build a plan for every graph, one after the other, into the folder that holds the graphs.

    Args:
        root: of the bundle in the making.
        manifest: of its graphs; the plans are not in it yet.
        choice: what to build.
        stages: is told how far it is.
        name: of the bundle for the report; None takes `root`.

    Raises:
        ExportError: a graph cannot be built, or its plan is not what the manifest claims; names graph and layer.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    started = time.monotonic()
    claims = read_claims(root, manifest)
    weights = {graph: _bytes(manifest, graph) / 1e6 + 5.0 for graph in manifest.graphs}
    results: dict[str, PlanResult] = {}
    with stages.stage(f"{choice.module.backend} plans", sum(weights.values()), "MB") as progress:
        for graph, weight in weights.items():
            progress.note(graph)
            reached = 0.0

            def advance(part: float, weight: float = weight) -> None:
                nonlocal reached
                progress.advance((part - reached) * weight)
                reached = part

            job = plan_job(root, manifest, graph, claims[graph], choice)
            results[graph] = build_plan(job, advance)
            advance(1.0)
    files = {choice.file(graph): hash_file(root / choice.file(graph)) for graph in results}
    version = next(iter(results.values())).version
    engines = {
        graph: EngineInfo(
            file=choice.file(graph),
            backend=choice.module.backend,
            version=version,
            platform=platform_name(),
            compute_capabilities=choice.capabilities,
            profile=choice.profile,
            graph_sha256=graph_hash(manifest.files, manifest.graphs[graph]),
            evidence=result.evidence,
            activation_bytes=result.activation_bytes,
        )
        for graph, result in results.items()
    }
    peaks = [result.peak_memory_bytes for result in results.values() if result.peak_memory_bytes is not None]
    report = PlansReport(
        bundle=name or str(root),
        backend=choice.module.backend,
        version=version,
        capabilities=choice.capabilities,
        profile=choice.profile,
        seconds=time.monotonic() - started,
        peak_memory_bytes=max(peaks) if peaks else None,
        graphs=results,
    )
    return Plans(engines, files, report)


def add_plans(folder: Path, choice: EngineChoice, stages: Stages) -> PlansReport:
    """Build the plans of an existing bundle into it; plans of other builds stay, those of the same name are replaced.

    The new bundle is put together beside the old one and takes its place at the end, so a failure changes nothing.

    Raises:
        BundleError: the bundle is damaged or not to be trusted.
        ExportError: as `build_plans`.
        OutputError: the place cannot be written.
    """
    bundle = Bundle.open(folder)
    check_contract(bundle.manifest)
    with stages.stage("hashes", 1.0):
        bundle.verify()
    graphs = sum(_bytes(bundle.manifest, graph) for graph in bundle.manifest.graphs)
    require_space(folder, round(graphs * _SPACE_FACTOR) + _KERNEL_BYTES * len(bundle.manifest.graphs))
    with new_bundle(folder) as writer:
        for inside in bundle.manifest.files:
            _link(bundle.path(inside), writer.root / inside)
        plans = build_plans(writer.root, bundle.manifest, choice, stages, str(folder))
        writer.commit(with_plans(bundle.manifest, plans))
    return plans.report


def with_plans(manifest: Manifest, plans: Plans) -> Manifest:
    """The manifest with the plans in it, in the place of those of the same file names."""
    engines = {graph: list(items) for graph, items in manifest.engines.items()}
    for graph, engine in plans.engines.items():
        engines[graph] = [item for item in engines.get(graph, []) if item.file != engine.file] + [engine]
    return replace(
        manifest,
        engines={graph: tuple(items) for graph, items in engines.items()},
        files={**manifest.files, **plans.files},
    )


def read_claims(root: Path, manifest: Manifest) -> dict[str, Claim]:
    """What every graph claims to be.

    Raises:
        ExportError: the bundle computes in float32, or says that it is quantised and no graph is.
    """
    if manifest.graphs["conditioner"].outputs[0].dtype != "float16":
        raise ExportError(
            f"This {manifest.precision} bundle computes in float32, for CPUs, and TensorRT fuses attention in float16 "
            "only; build from a bundle that was exported with --precision fp16."
        )
    claims = {}
    for name, graph in manifest.graphs.items():
        islands = [island.node for island in manifest.islands if island.graph == name]
        claims[name] = read_claim(name, root / graph.file, "float16", islands)
    kinds = {kind for claim in claims.values() for kind in claim.quantised.values()}
    wanted = {Precision.INT8: "int8", Precision.FP8: "float8_e4m3fn"}.get(manifest.precision)
    if wanted is not None and wanted not in kinds:
        raise ExportError(
            f"The bundle says {manifest.precision} and none of its graphs has a layer in it; run rap-calibrate again."
        )
    return claims


def plan_job(root: Path, manifest: Manifest, graph: str, claim: Claim, choice: EngineChoice) -> PlanJob:
    """The job of one graph: its free dimensions take the sizes that the runtime uses."""
    info = manifest.graphs[graph]
    least, most = encoder_frames(manifest.spec)
    chunk = chunk_sizes(manifest.spec)
    sizes = {
        tensor.name: tuple(resolved_shape(tensor, chunk | {FREE_FRAMES: frames}) for frames in (least, most, most))
        for tensor in info.inputs
        if any(isinstance(size, str) for size in tensor.shape)
    }
    return PlanJob(
        module=choice.module.module,
        onnx=str(root / info.file),
        plan=str(root / choice.file(graph)),
        claim=claim,
        capabilities=choice.targets,
        profile=choice.profile,
        sizes=sizes,  # type: ignore[arg-type]
        timing_cache=choice.timing_cache,
        plugin_capability=_plugin_capability(manifest.spec, claim, choice),
    )


def _plugin_capability(spec: ModelSpec, claim: Claim, choice: EngineChoice) -> str:
    """See `PlanJob.plugin_capability`: TensorRT-RTX has no plugins, the kernel two head widths, and whether a plan for
    later versions keeps its kernels is not known."""
    takes_plugins = choice.module == TENSORRT and choice.profile not in VERSION_COMPATIBLE
    if not (takes_plugins and claim.hybrid and spec.head_dim in HEAD_DIMS):
        return ""
    return choice.capabilities[0].rstrip("+")


def encoder_frames(spec: ModelSpec) -> tuple[int, int]:
    """The least and the largest number of frames that the runtime gives to the VAE encoder at once.

    A portrait is encoded as a whole chunk; a clean carry encodes the carried frames of every chunk too.
    """
    return (spec.carried_frames if spec.carry == "clean" else spec.chunk_frames), spec.chunk_frames


def _bytes(manifest: Manifest, graph: str) -> int:
    info = manifest.graphs[graph]
    return sum(manifest.files[path].bytes for path in (info.file, *info.data))


def _link(source: Path, target: Path) -> None:
    """Put a file into the new bundle; its content is not copied where the file system can share it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
