"""The chunk over plans of TensorRT-RTX, built here for one target.

    python benchmarks/steps/rtx_plans.py SPEC --bundle build/gpu/rap-small-fp16 [--targets current,80,none,86]

Every target's plan of the smallest graph is built, loaded and run first; what TensorRT-RTX itself says of its validity
stands beside it. The chunk is then measured over plans for the first target that ran. "none" tells the builder nothing,
which its own message calls every GPU that it supports.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measured_loop import FAILURES, HEAD, SEED, Model, networks_of
from viewers import LANES_HEAD, lanes_rows

from rap_edge.export.plans.choice import EngineChoice
from rap_edge.export.plans.make_plans import plan_job, read_claims
from rap_edge.export.plans.process import build_plan
from rap_edge.export.plans.profiles import AHEAD_OF_TIME
from rap_edge.export.plans.truth.claim import Claim
from rap_edge.models.presets import PRESETS
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.engines.tensorrt_engine import TensorRtEngine
from rap_edge.runtime.errors import RapEdgeError, first_line
from rap_edge.runtime.loop.gpu.lanes import Lanes
from rap_edge.runtime.loop.gpu.loop import DeviceChunkLoop
from rap_edge.runtime.loop.gpu.shared import Device
from rap_edge.runtime.machine.cuda import Cuda
from rap_edge.runtime.machine.tensorrt_modules import RTX, load_module, log_of

SMALLEST = "conditioner"


class Plans:
    """Builds and loads plans of a bundle in a folder."""

    def __init__(self, bundle: Bundle, folder: Path, module: Any, cuda: Cuda) -> None:
        self._bundle, self._folder, self._module, self._cuda = bundle, folder, module, cuda
        self._claims: Mapping[str, Claim] = read_claims(bundle.root, bundle.manifest)

    def build(self, graph: str, target: str) -> tuple[Path, float]:
        """The plan of a graph, and the seconds that it took; raises `ExportError`."""
        choice = EngineChoice(RTX, targets_of(target), ("any",), AHEAD_OF_TIME)
        path = self._folder / f"{graph}-{target}.plan"
        job = replace(
            plan_job(self._bundle.root, self._bundle.manifest, graph, self._claims[graph], choice), plan=str(path)
        )
        started = time.perf_counter()
        build_plan(job, lambda part: None)
        return path, time.perf_counter() - started

    def load(self, graph: str, path: Path) -> TensorRtEngine:
        """The engine of a plan; raises `EngineError`."""
        return TensorRtEngine(graph, self._bundle.manifest.graphs[graph], path.read_bytes(), self._module, self._cuda)

    def validity(self, path: Path) -> str:
        """What TensorRT-RTX itself says of a plan on this GPU."""
        runtime = self._module.Runtime(log_of(self._module).logger)
        try:
            verdict, reasons = runtime.get_engine_validity(path.read_bytes())
        except (RuntimeError, TypeError, ValueError) as error:
            return first_line(error)
        return f"{verdict} {reasons}"


def targets_of(word: str) -> tuple[str, ...]:
    """Compute capabilities of a target as it is written on the command line."""
    return {"none": (), "current": ("current",)}.get(word, (f"{word[:-1]}.{word[-1]}",))


def main(argv: Sequence[str] | None = None) -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description="The GPU's chunk loop over TensorRT-RTX.")
    parser.add_argument("spec", choices=list(PRESETS))
    parser.add_argument("--bundle", required=True, help="of the spec, in fp16, exported of the same weights")
    parser.add_argument(
        "--targets", default="current,80,none,86", help="tried in turn; the first that runs is measured"
    )
    given = parser.parse_args(argv)
    module, cuda = load_module(RTX), Cuda()
    if module is None:
        print("- the module tensorrt_rtx is not installed")
        return
    print(f"- tensorrt_rtx {module.__version__} on compute capability {cuda.compute_capability}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plans = Plans(Bundle.open(given.bundle), Path(folder), module, cuda)
        target = _first_that_runs(plans, given.targets.split(","))
        if target is not None:
            _measure(plans, given.spec, target, cuda)


def _first_that_runs(plans: Plans, targets: Sequence[str]) -> str | None:
    print(
        "\n| target | build | load and run of the smallest graph | TensorRT-RTX says |\n|---|--:|---|---|", flush=True
    )
    works = None
    for target in targets:
        try:
            path, seconds = plans.build(SMALLEST, target)
        except RapEdgeError as error:
            print(f"| {target} | {first_line(error)} | | |", flush=True)
            continue
        said, started = plans.validity(path), time.perf_counter()
        try:
            plans.load(SMALLEST, path).prepare()
            told = f"runs after {time.perf_counter() - started:.2f} s"
            works = works or target
        except FAILURES as error:
            told = first_line(error)
        print(f"| {target} | {seconds:.1f} s | {told} | {said} |", flush=True)
    return works


def _measure(plans: Plans, spec: str, target: str, cuda: Cuda) -> None:
    model = Model.of(networks_of(spec), 3, torch.device("cuda"), torch.float16)
    torch.cuda.empty_cache()
    built = {graph: plans.build(graph, target) for graph in model.engines}
    print(f"\n- built for {target}: {', '.join(f'{graph} {took:.1f} s' for graph, (_, took) in built.items())}\n")
    engines = {graph: plans.load(graph, path) for graph, (path, _) in built.items()}
    device = Device.open(cuda, cuda.stream(), engines)
    print(HEAD, flush=True)
    for name, capture in (("plans, one CUDA graph", True), ("plans, no graph", False), ("plans, opened again", True)):
        row = model.row(
            name,
            lambda capture=capture: DeviceChunkLoop(
                device, engines, model.spec, model.reference, SEED, capture=capture
            ),
            5,
        )
        print(row, flush=True)
    print(f"\n{LANES_HEAD}")
    for row in lanes_rows(model.spec, model.reference, lambda count: Lanes(device, engines, count).new_loop):
        print(row, flush=True)


if __name__ == "__main__":
    main()
