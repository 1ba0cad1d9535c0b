"""Which plans of TensorRT-RTX run on the GPU that is here: built for it, for Ampere, and for the default targets.

    python benchmarks/tensorrt_rtx_targets.py --bundle build/nano-fp16

Its list of targets knows neither Hopper nor Jetson Orin, and the runtime refuses a plan that does not list the GPU's
compute capability. This goes past that check: it builds the denoiser for every set of targets, loads it, runs it on
random inputs and compares it with ONNX Runtime. Without a GPU it builds, and says what kept it from going on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rap_edge.export.plans.choice import choose_engines
from rap_edge.export.plans.make_plans import plan_job, read_claims
from rap_edge.export.plans.process import build_plan
from rap_edge.export.plans.truth.claim import Claim
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.engines.interface import Array, Engine
from rap_edge.runtime.engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine
from rap_edge.runtime.engines.tensorrt_engine import TensorRtEngine
from rap_edge.runtime.errors import RapEdgeError, first_line
from rap_edge.runtime.machine.cuda import Cuda
from rap_edge.runtime.machine.tensorrt_modules import RTX, load_module

GRAPH = "dit"
TARGETS = ("current", "80", None)
RUNS = 20


@dataclass(frozen=True)
class Attempt:
    """What became of one set of targets: a figure, or a sentence, for the build and for the run."""

    targets: str
    build: str
    run: str


def attempt(bundle: Bundle, claim: Claim, target: str | None, inputs: Mapping[str, Array], expected: Array) -> Attempt:
    """Build, load, run and compare.

    Args:
        bundle: in fp16.
        claim: of the graph.
        target: as `rap-export --target` takes it; None for the default.
        inputs: of the graph.
        expected: its output.
    """
    manifest, name = bundle.manifest, target or "default"
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "g.plan"
        try:
            choice = choose_engines(RTX.backend, target, None, manifest.precision)
            job = replace(plan_job(bundle.root, manifest, GRAPH, claim, choice), plan=str(plan))
            built = f"{build_plan(job, lambda part: None).seconds:.1f} s"
        except RapEdgeError as error:
            return Attempt(name, first_line(error), "")
        try:
            engine = TensorRtEngine(GRAPH, manifest.graphs[GRAPH], plan.read_bytes(), load_module(RTX), Cuda())
            found, seconds = run(engine, inputs)
        except RapEdgeError as error:
            return Attempt(name, built, first_line(error))
    apart = float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))
    return Attempt(name, built, f"{1e3 * seconds:.2f} ms, {apart:.1e} from ONNX Runtime")


def run(engine: Engine, inputs: Mapping[str, Array]) -> tuple[Array, float]:
    """The graph's first output, and the median time of a run with its copies."""
    execution = engine.prepare()
    for name, values in inputs.items():
        execution.buffers[name][...] = values
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        execution.run()
        times.append(time.perf_counter() - started)
    return execution.buffers[engine.graph.outputs[0].name].copy(), statistics.median(times)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 once everything has been tried, 2 where the bundle cannot be used."""
    parser = argparse.ArgumentParser(description="Try plans of TensorRT-RTX for several targets on this GPU.")
    parser.add_argument("--bundle", required=True, help="an fp16 bundle")
    arguments = parser.parse_args(argv)
    try:
        bundle = Bundle.open(arguments.bundle)
        info = bundle.manifest.graphs[GRAPH]
        random = np.random.default_rng(0)
        inputs = {tensor.name: random.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in info.inputs}
        inputs["timestep"][...] = 500.0
        claim = read_claims(bundle.root, bundle.manifest)[GRAPH]
        with bundle.graph_content(GRAPH) as content:
            expected, _ = run(OnnxRuntimeEngine(GRAPH, info, content, None, CPU_ONLY), inputs)
    except RapEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    print("| targets | build | run |\n|---|---|---|")
    for target in TARGETS:
        tried = attempt(bundle, claim, target, inputs, expected)
        print(f"| {tried.targets} | {tried.build} | {tried.run} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
