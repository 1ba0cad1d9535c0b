"""A model on a GPU, every way that there is, side by side in one run: plans with and without a CUDA graph, ONNX Runtime
with CUDA, and the same networks in PyTorch, eager and compiled.

    rap-export --spec flashhead-lite --random-weights --precision fp16 --engine tensorrt-rtx --target current
    python benchmarks/gpu.py --bundle build/flashhead-lite-fp16 [--rounds 5] [--chunks 4] [--json FILE]

Every round gives each way its turn; a way that fails is left out with the reason. Milliseconds are medians over all
chunks, from the sound on the host to the frames on the host. Fidelity is the PSNR of the first chunks against PyTorch
in the same precision with the same noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from hybrid_attention import copy_bytes_per_us, operations_per_us
from numpy.typing import NDArray
from provenance import commit
from torch_loop import TorchLoop, compile_with_graphs

from rap_edge.export.parity.check_inputs import golden_inputs
from rap_edge.export.parity.compare import compare
from rap_edge.export.sources.network_source import networks_of
from rap_edge.export.stages import Stages
from rap_edge.models.networks import Networks
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.manifest import Manifest, recorded
from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.errors import RapEdgeError, first_line
from rap_edge.runtime.loading import LoadedEngines, load_engines
from rap_edge.runtime.loop.interface import Loop, encode_reference
from rap_edge.runtime.loop.noise import normal
from rap_edge.runtime.machine.cuda_driver import query_driver
from rap_edge.runtime.spec import ModelSpec

SEED = 0
CHECKED_CHUNKS = 2
# What is out of memory or does not compile must not take the other figures with it.
FAILURES = (RapEdgeError, RuntimeError)

Render = Callable[[NDArray[np.float32]], tuple[NDArray[np.uint8], Mapping[str, float]]]
"""From a window of sound to a chunk's new frames on the host and the seconds per stage."""


@dataclass(frozen=True)
class _Evidence:
    traffic_bytes: Annotated[int, Whole(0, 1 << 50, "bytes")] | None = None


@dataclass(frozen=True)
class Way:
    """One way to render.

    Attributes:
        name: for the table.
        render: how it runs.
        note: what there is to say about it.
        step_bytes: what one denoise step moves through the GPU's memory, 0 if not known.
    """

    name: str
    render: Render
    note: str = ""
    step_bytes: int = 0


@dataclass(frozen=True)
class Limits:
    """What the GPU reached in this run: operations per second of a large matrix product in the bundle's precision, and
    bytes per second that a large copy reads and writes."""

    operations: float
    bandwidth: float


@dataclass(frozen=True)
class Figures:
    """What one way took.

    Attributes:
        name: of the way.
        chunk_ms: median and 95th percentile of a chunk, sound to frames on the host.
        step_ms: median of one denoise step.
        decode_ms: median of the decoder.
        fps: new frames per second of rendering.
        rtf: median time over the time that a chunk plays.
        share_of_peak: the DiT's operations over the measured matrix product.
        share_of_bandwidth: what the DiT moves over the measured copy, None where what it moves is not known. Beyond 1
            the caches help.
        psnr: least PSNR of the first chunks against PyTorch with the same noise, dB.
        note: why it is not what was asked for, if so.
    """

    name: str
    chunk_ms: tuple[float, float]
    step_ms: float
    decode_ms: float
    fps: float
    rtf: float
    share_of_peak: float
    share_of_bandwidth: float | None
    psnr: float
    note: str


def check(
    ways: Sequence[Way], reference: Render, windows: Sequence[NDArray[np.float32]]
) -> tuple[list[Way], dict[str, float], list[str]]:
    """Render the first chunks every way.

    Args:
        ways: freshly opened, so that all begin with the portrait.
        reference: PyTorch with the noise of the engines.
        windows: float32 [window_samples] of consecutive chunks, at least `CHECKED_CHUNKS`.

    Returns:
        The ways that can, their least PSNR against `reference`, and why the others cannot.
    """
    expected = [reference(window)[0] for window in windows[:CHECKED_CHUNKS]]
    psnr: dict[str, float] = {}
    missing = []
    for way in ways:
        try:
            rendered = [way.render(window)[0] for window in windows[:CHECKED_CHUNKS]]
        except FAILURES as error:
            missing.append(f"{way.name}: {first_line(error)}")
            continue
        psnr[way.name] = min(compare(frames, ours).psnr for frames, ours in zip(expected, rendered, strict=True))
    return [way for way in ways if way.name in psnr], psnr, missing


def measure(
    ways: Sequence[Way],
    psnr: Mapping[str, float],
    manifest: Manifest,
    windows: Sequence[NDArray[np.float32]],
    rounds: int,
    limits: Limits,
) -> list[Figures]:
    """Give every way its turn, `rounds` times over all windows.

    Args:
        ways: what to measure, as `check` gave it.
        psnr: of the first chunks.
        manifest: of the model.
        windows: float32 [window_samples] of consecutive chunks.
        rounds: turns.
        limits: of the GPU.
    """
    spec = manifest.spec
    wall: dict[str, list[float]] = {way.name: [] for way in ways}
    stages: dict[str, list[Mapping[str, float]]] = {way.name: [] for way in ways}
    with Stages().stage("rounds", rounds * len(ways)) as progress:
        for _ in range(rounds):
            for way in ways:
                for window in windows:
                    started = time.perf_counter()
                    _, seconds = way.render(window)
                    wall[way.name].append(time.perf_counter() - started)
                    stages[way.name].append(seconds)
                progress.advance(1)
    dit_flops = (manifest.graphs["dit"].flops or 0) * spec.steps
    figures = []
    for way in ways:
        times, denoise = wall[way.name], statistics.median(s["denoise"] for s in stages[way.name])
        middle = statistics.median(times)
        figures.append(
            Figures(
                name=way.name,
                chunk_ms=(1e3 * middle, 1e3 * float(np.percentile(times, 95))),
                step_ms=1e3 * denoise / spec.steps,
                decode_ms=1e3 * statistics.median(s["vae_decoder"] for s in stages[way.name]),
                fps=spec.new_frames / middle,
                rtf=middle / spec.chunk_seconds,
                share_of_peak=dit_flops / denoise / limits.operations,
                share_of_bandwidth=way.step_bytes * spec.steps / denoise / limits.bandwidth or None,
                psnr=psnr[way.name],
                note=way.note,
            )
        )
    return figures


def torch_ways(
    make: Callable[[], Networks], portrait: NDArray[np.uint8], device: torch.device
) -> tuple[list[Way], list[str]]:
    """PyTorch, eager and compiled, each with networks of its own; and why some of these cannot be had."""
    wraps = {
        "PyTorch eager": lambda module: module,
        "torch.compile": torch.compile,
        "torch.compile, CUDA graphs": compile_with_graphs,
    }
    ways, missing = [], []
    for name in wraps if device.type == "cuda" else ["PyTorch eager"]:
        try:
            ways.append(Way(name, TorchLoop(make(), portrait, device, wrap=wraps[name]).render))
        except FAILURES as error:
            missing.append(f"{name}: {first_line(error)}")
    return ways, missing


def engine_way(name: str, loaded: LoadedEngines, manifest: Manifest, portrait: NDArray[np.uint8], **how: bool) -> Way:
    """Our own loop over loaded engines."""
    reference = encode_reference(manifest.spec, loaded.engines["vae_encoder"], portrait)
    loop = partial(loaded.new_loop, **how)(manifest.spec, reference, SEED)
    return Way(name, partial(_render, loop, manifest.spec.steps), "; ".join((*loaded.notes, *loop.notes)))


def plan_ways(bundle: Bundle, backend: str, portrait: NDArray[np.uint8]) -> list[Way]:
    """Our loop over the bundle's plans, with and without a CUDA graph.

    Raises:
        RapEdgeError: the plans cannot run here.
    """
    loaded, manifest = load_engines(bundle, backend), bundle.manifest
    plan = [item for item in manifest.engines["dit"] if item.backend == backend][-1]
    moved = recorded(_Evidence, plan.evidence, "evidence").traffic_bytes or 0
    return [
        replace(engine_way(f"{backend}, {graph}", loaded, manifest, portrait, capture=capture), step_bytes=moved)
        for graph, capture in (("one CUDA graph", True), ("no graph", False))
    ]


def checked_torch(networks: Networks, portrait: NDArray[np.uint8], device: torch.device) -> Render:
    """PyTorch with the noise that our loops draw."""
    shape = networks.spec.latent_shape
    return TorchLoop(
        networks,
        portrait,
        device,
        noise=lambda chunk, draw: torch.from_numpy(normal(shape, SEED, chunk, draw)).to(device),
    ).render


def in_precision(manifest: Manifest, checkpoint: Path | None) -> Networks:
    """The bundle's networks in fp16, or in fp32 for a bundle in fp32."""
    networks = networks_of(manifest, checkpoint)
    if manifest.precision != Precision.FP32:
        for network in (networks.dit, networks.vae, networks.audio_encoder):
            network.half()
    return networks


def sound_windows(spec: ModelSpec, speech: NDArray[np.float32], chunks: int) -> list[NDArray[np.float32]]:
    """Speech, float32 [samples], as the windows of consecutive chunks, repeated as often as needed."""
    sound = np.concatenate((np.zeros(spec.window_samples, np.float32), np.resize(speech, chunks * spec.chunk_samples)))
    ends = spec.window_samples + spec.chunk_samples * np.arange(1, chunks + 1)
    return [sound[end - spec.window_samples : end] for end in ends]


def table(title: str, figures: Sequence[Figures]) -> str:
    """Markdown, with the time of everything over that of the first plan."""
    lines = [
        title,
        "",
        "| | ms per chunk, median / p95 | ms per step | ms decode | fps | RTF | of matmul peak | of bandwidth | PSNR "
        "| eager / it |",
        "|---|" + "--:|" * 9,
    ]
    eager = next((item.chunk_ms[0] for item in figures if item.name == "PyTorch eager"), None)
    for item in figures:
        moved = "" if item.share_of_bandwidth is None else f"{item.share_of_bandwidth:.0%}"
        ratio = "" if eager is None else f"{eager / item.chunk_ms[0]:.2f}x"
        lines.append(
            f"| {item.name} | {item.chunk_ms[0]:.1f} / {item.chunk_ms[1]:.1f} | {item.step_ms:.2f} "
            f"| {item.decode_ms:.1f} | {item.fps:.0f} | {item.rtf:.3f} | {item.share_of_peak:.0%} | {moved} "
            f"| {item.psnr:.1f} dB | {ratio} |"
        )
    return "\n".join([*lines, *(f"\n{item.name}: {item.note}" for item in figures if item.note)])


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 after a run or without a GPU, 2 where the bundle cannot be used."""
    parser = argparse.ArgumentParser(description="Time a bundle on a GPU beside PyTorch.")
    parser.add_argument("--bundle", required=True, help="exported with --engine, so that it has plans for this GPU")
    parser.add_argument("--checkpoint", type=Path, help="what it was exported from, if that does not ship")
    parser.add_argument("--rounds", type=argument(Whole(1, 10_000)), default=5, help="turns of each way (default 5)")
    parser.add_argument(
        "--chunks", type=argument(Whole(2, 10_000)), default=4, help="chunks per turn (default 4, at least 2)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("skipped: PyTorch finds no CUDA GPU here.")
        return 0
    try:
        return _run(arguments)
    except RapEdgeError as error:
        print(error, file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    bundle, device = Bundle.open(arguments.bundle), torch.device("cuda")
    manifest = bundle.manifest
    portrait, speech = golden_inputs(bundle)
    windows = sound_windows(manifest.spec, speech, max(arguments.chunks, CHECKED_CHUNKS))
    ways, missing = torch_ways(partial(in_precision, manifest, arguments.checkpoint), portrait, device)
    for backend in ("tensorrt-rtx", "tensorrt"):
        try:
            ways += plan_ways(bundle, backend, portrait)
        except RapEdgeError as error:
            missing.append(f"{backend}: {error}")
    loaded = load_engines(bundle)
    if loaded.engines["dit"].device == "CUDA GPU":
        ways.append(engine_way("ONNX Runtime CUDA", loaded, manifest, portrait))
    else:
        missing.append("ONNX Runtime CUDA: this onnxruntime has no CUDA provider; install rap-edge[gpu].")
    dtype = torch.float32 if manifest.precision == Precision.FP32 else torch.float16
    limits = Limits(1e6 * operations_per_us(dtype), 1e6 * copy_bytes_per_us())
    checked = checked_torch(in_precision(manifest, arguments.checkpoint), portrait, device)
    ways, psnr, unusable = check(ways, checked, windows)
    missing += unusable
    figures = measure(ways, psnr, manifest, windows, arguments.rounds, limits)
    driver = query_driver().version
    where = (
        f"{manifest.spec.name} {manifest.precision} on {torch.cuda.get_device_name()}, driver for CUDA {driver}, torch "
        f"{torch.__version__}, commit {commit()}; matrix products at {limits.operations / 1e12:.0f} TFLOP/s, copies "
        f"at {limits.bandwidth / 1e9:.0f} GB/s; medians of {len(windows) * arguments.rounds} chunks"
    )
    print("\n".join([table(where, figures), *missing]))
    if arguments.json:
        found = {"where": where, "figures": [asdict(item) for item in figures], "missing": missing}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _render(loop: Loop, steps: int, window: NDArray[np.float32]) -> tuple[NDArray[np.uint8], Mapping[str, float]]:
    loop.waveform[...] = window
    return loop.render(steps)


if __name__ == "__main__":
    sys.exit(main())
