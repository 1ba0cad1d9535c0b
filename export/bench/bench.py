"""The same chunk loop on several backends or bundles, side by side and in turn.

In: a bundle. Out: medians per stage and chunk, ratios, FLOPs per chunk and the share of this machine's GEMM peak.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import Manifest
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.cli.table import columns
from rap_edge.runtime.engines import registry
from rap_edge.runtime.engines.interface import Engine
from rap_edge.runtime.engines.onnxruntime_engine import cpu_name
from rap_edge.runtime.engines.registry import DEFAULT
from rap_edge.runtime.errors import BundleError
from rap_edge.runtime.loading import load_engines
from rap_edge.runtime.loop.interface import STAGES
from rap_edge.runtime.machine.available import available_cores

from ..capture.flops import chunk_flops
from ..parity.check_inputs import golden_inputs
from ..stages import Stages

TORCH = "torch"


@dataclass(frozen=True)
class Figures:
    """What one backend took.

    Attributes:
        engine: backend and version.
        precision: of the graphs.
        chunk_ms: median milliseconds per chunk.
        rtf: median compute time over the chunk's duration.
        stages_ms: median milliseconds per stage.
        gflops: sustained GFLOP/s, from the bundle's operation count.
        share_of_gemm: `gflops` over the machine's measured GEMM peak.
        ratio: how many times longer than ONNX Runtime with the first bundle.
    """

    engine: str
    precision: Precision
    chunk_ms: float
    rtf: float
    stages_ms: Mapping[str, float]
    gflops: float
    share_of_gemm: float
    ratio: float


@dataclass(frozen=True)
class Comparison:
    """Figures of every backend on one bundle and machine."""

    spec: str
    precision: Precision
    device: str
    chunk_seconds: float
    chunk_gflop: float
    chunks: int
    rounds: int
    backends: Mapping[str, Figures]


def _chunk_flops(manifest: Manifest) -> int:
    return chunk_flops(manifest.spec, {name: graph.flops for name, graph in manifest.graphs.items()})


def gemm_peak(size: int = 2048, repeats: int = 8) -> float:
    """Best of several fp32 matrix products in numpy, in FLOP/s."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(times)


def run_chunks(avatar: Avatar, audio: NDArray[np.float32], chunks: int) -> list[dict[str, float]]:
    """Seconds per stage of `chunks` chunks, after one that warms up."""
    with avatar.session(seed=0) as session:
        need = avatar.spec.chunk_samples * (chunks + 1) + avatar.spec.look_ahead_samples
        session.push(np.resize(audio, need))
        stats = [dict(chunk.stats) for chunk in session.chunks()]
    return stats[1:]


def measure(
    avatars: Mapping[str, Avatar], audio: NDArray[np.float32], manifest: Manifest, chunks: int, rounds: int
) -> dict[str, Figures]:
    """Run every backend in turn, `rounds` times, and take medians over all chunks."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in avatars}
    with Stages().stage("rounds", rounds * len(avatars)) as progress:
        for _ in range(rounds):
            for name, avatar in avatars.items():
                samples[name] += run_chunks(avatar, audio, chunks)
                progress.advance(1)
    peak = gemm_peak()
    flops = _chunk_flops(manifest)
    medians = {name: statistics.median(sum(s.values()) for s in stats) for name, stats in samples.items()}
    return {
        name: Figures(
            engine=avatars[name].engine,
            precision=avatars[name].precision,
            chunk_ms=1e3 * medians[name],
            rtf=medians[name] / manifest.spec.chunk_seconds,
            stages_ms={
                stage: 1e3 * statistics.median(s[stage] for s in stats) for stage in STAGES if stage in stats[0]
            },
            gflops=flops / medians[name] / 1e9,
            share_of_gemm=flops / medians[name] / peak,
            ratio=medians[name] / medians[DEFAULT],
        )
        for name, stats in samples.items()
    }


def _torch(bundle: Bundle, threads: int, checkpoint: Path | None) -> Mapping[str, Engine]:
    """The bundle's networks in eager PyTorch, which is no backend of the runtime; see `networks_of`."""
    import torch

    from ..capture.torch_engine import torch_engines
    from ..sources.network_source import networks_of

    torch.set_num_threads(threads)
    return torch_engines(networks_of(bundle.manifest, checkpoint))


def bench(
    folder: str,
    against: Sequence[str],
    chunks: int,
    rounds: int,
    threads: int | None,
    checkpoint: Path | None = None,
) -> Comparison:
    """Measure the bundle in `folder` on ONNX Runtime, and what is named in `against`.

    Args:
        folder: the bundle.
        against: "torch", backends, or folders of other bundles of the same model.
        chunks: per round.
        rounds: in each, everything has its turn.
        threads: None takes every core.
        checkpoint: what the bundle came from, for "torch"; see `networks_of`.

    Raises:
        CheckpointError: "torch" needs the checkpoint, and it is not given or cannot be read.
        BundleError: a bundle cannot be used, has no golden clip, or is of another model.
        EngineError: a backend is missing or cannot load a graph.
    """
    bundle = Bundle.open(folder)
    manifest, count = bundle.manifest, threads or available_cores()
    portrait, audio = golden_inputs(bundle)
    avatars = {}
    for name in (DEFAULT, *against):
        if name == TORCH:
            avatars[name] = Avatar(manifest.spec, _torch(bundle, count, checkpoint), portrait, manifest.precision)
            continue
        measured, engine = (bundle, name) if name in registry.BACKENDS else (Bundle.open(name), DEFAULT)
        if measured.manifest.spec != manifest.spec:
            raise BundleError(f"{name!r} is a bundle of another model or setting; compare bundles of one spec.")
        loaded = load_engines(measured, engine, threads=count)
        precision = measured.manifest.precision
        avatars[name] = Avatar(manifest.spec, loaded.engines, portrait, precision, new_loop=loaded.new_loop)
    return Comparison(
        spec=manifest.spec.name,
        precision=manifest.precision,
        device=f"{cpu_name()}, {count} threads",
        chunk_seconds=manifest.spec.chunk_seconds,
        chunk_gflop=_chunk_flops(manifest) / 1e9,
        chunks=chunks * rounds,
        rounds=rounds,
        backends=measure(avatars, audio, manifest, chunks, rounds),
    )


def table(result: Comparison) -> str:
    """The comparison as text, one column per backend."""
    backends = list(result.backends.values())
    stages = backends[0].stages_ms
    rows: list[tuple[str, Sequence[str]]] = [
        ("engine", [figures.engine for figures in backends]),
        ("precision", [figures.precision for figures in backends]),
        ("RTF", [f"{figures.rtf:.3f}" for figures in backends]),
        ("ms per chunk", [f"{figures.chunk_ms:.1f}" for figures in backends]),
        *((f"  {stage}", [f"{figures.stages_ms[stage]:.1f}" for figures in backends]) for stage in stages),
        ("GFLOP/s", [f"{figures.gflops:.0f}" for figures in backends]),
        ("share of GEMM peak", [f"{figures.share_of_gemm:.0%}" for figures in backends]),
        ("time against the first", [f"{figures.ratio:.2f}x" for figures in backends]),
    ]
    heading = (
        f"{result.spec} {result.precision} on {result.device}: {result.chunk_gflop:.1f} GFLOP per chunk of "
        f"{result.chunk_seconds:.2f} s, medians of {result.chunks} chunks in {result.rounds} rounds"
    )
    return "\n".join([heading, *columns([(name, *cells) for name, cells in rows])])
