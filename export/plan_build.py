"""Building one plan with `tensorrt_rtx` or `tensorrt`, which share a Python interface, and believing it or not.

This runs in the building process: see `plan_worker`. In: a `PlanJob`. Out: the plan's file, and a `PlanResult`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.pending_file import PendingFile
from rap_edge.runtime.report import peak_rss_mb

from .build_failure import explain_build, explain_parse
from .engine_inspector import inspected_steps
from .plan_job import CURRENT, PlanJob, PlanResult
from .plan_program import read_programs
from .plan_progress import PhaseTree
from .profiles import configure_profile
from .truth import check_network, check_steps, needs_evidence
from .turing import rows_without_products


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
    messages: list[str] = []
    logger = _logger(module, messages)
    builder = module.Builder(logger)
    # TensorRT before 10 needs the flag; since 11 networks are always strongly typed.
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    if not parser.parse_from_file(job.onnx):
        raise explain_parse(job, [parser.get_error(index) for index in range(parser.num_errors)], messages)
    attentions = check_network(network, module, job.claim)
    if "7.5" in job.capabilities:
        rows_without_products(network, module)
    config = _configured(builder, network, module, job)
    config.progress_monitor = monitor = _monitor(module, on_progress, cancelled)
    serialized = builder.build_serialized_network(network, config)
    if cancelled():
        raise KeyboardInterrupt
    if serialized is None:
        raise explain_build(job, messages)
    del monitor
    layers = network.num_layers
    size = _write(Path(job.plan), serialized)
    _save_timing_cache(config, job)
    del serialized, config, parser, network, builder
    evidence = _check_plan(job, module, logger, attentions)
    memory = peak_rss_mb()
    return PlanResult(
        version=str(module.__version__),
        bytes=size,
        seconds=time.monotonic() - started,
        peak_memory_bytes=None if memory is None else round(memory * 2**20),
        layers=layers,
        evidence=evidence,
    )


def _configured(builder: Any, network: Any, module: Any, job: PlanJob) -> Any:
    config = builder.create_builder_config()
    # TensorFloat-32 has the precision of float16: an island in it would be float32 in name only.
    config.clear_flag(module.BuilderFlag.TF32)
    if job.capabilities:
        config.num_compute_capabilities = len(job.capabilities)
        for index, capability in enumerate(job.capabilities):
            config.set_compute_capability(_capability(module, capability), index)
    configure_profile(config, module, job.profile)
    _set_sizes(builder, network, config, job)
    if job.timing_cache:
        path = Path(job.timing_cache)
        cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if cache is not None:
            config.set_timing_cache(cache, False)
    return config


def _capability(module: Any, capability: str) -> Any:
    name = "CURRENT" if capability == CURRENT else f"SM{capability.replace('.', '')}"
    try:
        return getattr(module.ComputeCapability, name)
    except AttributeError:
        raise ExportError(
            f"{module.__name__} {module.__version__} cannot build for compute capability {capability}; choose others "
            "with --target."
        ) from None


def _set_sizes(builder: Any, network: Any, config: Any, job: PlanJob) -> None:
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    profile = None
    for name, (least, usual, most) in job.sizes.items():
        if least == most:
            inputs[name].shape = usual
            continue
        profile = profile or builder.create_optimization_profile()
        profile.set_shape(name, least, usual, most)
    if profile is not None:
        config.add_optimization_profile(profile)


def _write(path: Path, serialized: Any) -> int:
    with PendingFile(path) as file:
        size = file.write(memoryview(serialized))
        file.commit()
    return size


def _save_timing_cache(config: Any, job: PlanJob) -> None:
    if job.timing_cache:
        path = Path(job.timing_cache)
        path.parent.mkdir(parents=True, exist_ok=True)
        with PendingFile(path) as file:
            file.write(memoryview(config.get_timing_cache().serialize()))
            file.commit()


def _check_plan(job: PlanJob, module: Any, logger: Any, attentions: tuple[str, ...]) -> dict[str, Any]:
    plan = Path(job.plan)
    programs = read_programs(plan)
    if programs:
        wanted = {f"sm{item.replace('.', '')}" for item in job.capabilities if item != CURRENT}
        built = {item for program in programs for item in program.accelerators if item != "*"}
        if missing := sorted(wanted - built):
            raise ExportError(
                f"The plan of {job.claim.graph!r} was not built for {missing[0]} although it was asked for; install "
                "the version of TensorRT that docs/engines.md names."
            )
        steps = [step for program in programs for step in program.steps]
        return check_steps(steps, job.claim, attentions, "program in the plan")
    steps = inspected_steps(module, logger, plan)
    if steps is not None:
        return check_steps(steps, job.claim, attentions, "engine inspector")
    if needs_evidence(job.claim):
        raise ExportError(
            f"{module.__name__} {module.__version__} does not tell what the plan of {job.claim.graph!r} does, so that "
            "its precision is unproved; install the version that docs/engines.md names."
        )
    return {"read_from": "network", "islands": len(job.claim.islands)}


def _logger(module: Any, messages: list[str]) -> Any:
    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            # Without a GPU TensorRT-RTX reports CUDA error 35 and goes on.
            if severity.name in ("ERROR", "INTERNAL_ERROR") and "cudaError 35" not in message:
                messages.append(" ".join(message.split()))

    return Logger()


def _monitor(module: Any, on_progress: Callable[[float], None], cancelled: Callable[[], bool]) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.phases = PhaseTree()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            self.phases.complete(name, step)
            on_progress(self.phases.fraction)
            return not cancelled()

        def phase_finish(self, name: str) -> None:
            self.phases.finish(name)
            on_progress(self.phases.fraction)

    return Monitor()
