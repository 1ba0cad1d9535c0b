"""Building one plan, and believing it or not.

This runs in the building process: see `plan_worker`. In: a `PlanJob`. Out: the plan's file, and a `PlanResult`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rap_edge.runtime.bundle.pending_file import PendingFile
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine.tensorrt_modules import log_of
from rap_edge.runtime.reports.run_report import peak_rss_mb

from ..hybrid_attention.plugin import register_hybrid_attention
from ..hybrid_attention.plugin_graph import plugin_graph
from .attention_choice import choose_attention
from .comparison import compare_plans
from .job import CURRENT, PlanJob, PlanResult
from .network import BuiltPlan, build_network
from .truth.check import check_steps, needs_evidence
from .truth.claim import Claim
from .truth.inspector import inspected_steps
from .truth.program import read_programs


def build_plan_here(
    job: PlanJob, module: Any, on_progress: Callable[[float], None], cancelled: Callable[[], bool]
) -> PlanResult:
    """Build, write and check one plan in this process.

    Args:
        job: what to build.
        module: imported, of the job's name.
        on_progress: takes the part that is done, 0..1.
        cancelled: asked between the steps of the build, which ends when it says yes.

    Raises:
        ExportError: the graph cannot be parsed or built, or is not what it claims to be; names the layer.
        KeyboardInterrupt: the build was cancelled.
    """
    started = time.monotonic()
    builds = 2 if job.plugin_capability else 1

    def build(number: int, claim: Claim, model: bytes | None) -> BuiltPlan:
        return build_network(job, module, claim, model, lambda part: on_progress((number + part) / builds), cancelled)

    logger = log_of(module).logger
    built, choice = build(0, job.claim, None), {}
    if job.plugin_capability:

        def with_plugins() -> BuiltPlan:
            register_hybrid_attention(module, job.plugin_capability)
            return build(1, job.claim.with_plugins(), plugin_graph(Path(job.onnx)))

        built, found = choose_attention(built, with_plugins, lambda plans: compare_plans(module, logger, plans))
        choice = {"hybrid_attention": found}
    size = _write(Path(job.plan), built.serialized)
    # The plan itself, which may be large, is in its file from here on.
    built = replace(built, serialized=None)
    evidence = _check_plan(job, module, logger, built.claim, built.attentions)
    memory = peak_rss_mb()
    return PlanResult(
        version=str(module.__version__),
        bytes=size,
        seconds=time.monotonic() - started,
        peak_memory_bytes=None if memory is None else round(memory * 2**20),
        layers=built.layers,
        activation_bytes=built.activation_bytes,
        evidence={**evidence, **choice},
    )


def _write(path: Path, serialized: Any) -> int:
    with PendingFile(path) as file:
        size = file.write(memoryview(serialized))
        file.commit()
    return size


def _check_plan(job: PlanJob, module: Any, logger: Any, claim: Claim, attentions: tuple[str, ...]) -> dict[str, Any]:
    plan = Path(job.plan)
    programs = read_programs(plan)
    if programs:
        wanted = {f"sm{item.replace('.', '')}" for item in job.capabilities if item != CURRENT}
        built = {item for program in programs for item in program.accelerators if item != "*"}
        if missing := sorted(wanted - built):
            raise ExportError(
                f"The plan of {claim.graph!r} was not built for {missing[0]} although it was asked for; install "
                "the version of TensorRT that docs/engines.md names."
            )
        steps = [step for program in programs for step in program.steps]
        evidence = check_steps(steps, claim, attentions, "program in the plan")
        # What other programs call is in those that were compiled for a GPU.
        traffic = [program.traffic for program in programs if "*" not in program.accelerators]
        told = [size for size in traffic if size is not None]
        return {**evidence, "traffic_bytes": max(told) if told and len(told) == len(traffic) else None}
    inspected = inspected_steps(module, logger, plan)
    if inspected is not None:
        return check_steps(inspected, claim, attentions, "engine inspector")
    if needs_evidence(claim):
        raise ExportError(
            f"{module.__name__} {module.__version__} does not tell what the plan of {claim.graph!r} does, so that "
            "its precision is unproved; install the version that docs/engines.md names."
        )
    return {"read_from": "network", "islands": len(claim.islands)}
