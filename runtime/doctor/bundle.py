"""What a bundle needs, which of its engines run on this machine, and how many sessions its memory allows.

In: a bundle and the machine's facts. Out: a section of findings; nothing is loaded into an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..bundle.bundle import Bundle
from ..bundle.contract import check_contract
from ..bundle.golden import read_golden
from ..bundle.manifest import EngineInfo, Manifest
from ..bundle.precision import Precision
from ..engines.cpu_memory import plan_cpu_memory
from ..engines.eight_bits import trouble_on_cpu, trouble_on_gpu
from ..engines.engine_set import set_needs
from ..engines.preflight import check_engine
from ..errors import BundleError, EngineError, MemoryPlanError, PreflightError, RapEdgeError
from ..loop.gpu.memory_budget import MemoryPlan, plan_memory
from ..machine.available import available_memory
from ..machine.shell import command_line
from ..machine.system_memory import as_gib
from .findings import Finding, Section, State
from .machine import Facts

_RENDER = ("--audio", "speech.wav", "-o", "out.mp4")


def bundle_section(bundle: Bundle, facts: Facts, engine: str | None = None) -> Section:
    """Findings about a bundle whose manifest has been read, of all its engines or of those that are asked for.

    Args:
        bundle: what is asked about.
        facts: of this machine.
        engine: see `find_set`.
    """
    manifest, findings = bundle.manifest, [_model(bundle.manifest)]
    try:
        check_contract(manifest)
        bundle.verify()
    except BundleError as error:
        findings.append(Finding("files", "problem", str(error)))
        return Section(f"Bundle {bundle.root}", tuple(findings))
    count, size = len(manifest.files), sum(info.bytes for info in manifest.files.values())
    findings.append(Finding("files", "ok", f"all {count} have their size and hash, {as_gib(size)}"))
    if engine is None:
        findings += _every_set(bundle, facts)
    else:
        findings += _one_set(bundle, facts, engine)
    findings.append(_memory(manifest, facts))
    findings.append(_selftest(bundle))
    return Section(f"Bundle {bundle.root}", tuple(findings))


def _every_set(bundle: Bundle, facts: Facts) -> Iterator[Finding]:
    try:
        yield _onnxruntime(bundle, facts)
    except BundleError as error:
        yield Finding("onnxruntime", "problem", str(error))
    yield _cpu_memory(bundle.manifest)
    for plans in builds(bundle.manifest):
        yield _plans(bundle, plans, facts)


def _one_set(bundle: Bundle, facts: Facts, engine: str) -> Iterator[Finding]:
    """All that the set which somebody wants lacks here, or that it runs."""
    lacks = []
    try:
        for need in set_needs(bundle, engine, facts.machine):
            try:
                need()
            except RapEdgeError as error:
                lacks.append(Finding(engine, "problem", str(error)))
    except (BundleError, EngineError) as error:
        lacks.append(Finding(engine, "problem", str(error)))
    command = command_line("rap-run", "--bundle", bundle.root, "--engine", engine, *_RENDER)
    yield from lacks or [Finding(engine, "ok", "runs here", command)]


def builds(manifest: Manifest) -> tuple[Mapping[str, EngineInfo], ...]:
    """The manifest's plans by graph name, those that were built together as one."""
    result: dict[tuple[str, ...], dict[str, EngineInfo]] = {}
    for name, engines in manifest.engines.items():
        for engine in engines:
            result.setdefault(engine.build, {})[name] = engine
    return tuple(result.values())


def _model(manifest: Manifest) -> Finding:
    spec = manifest.spec
    size = f"{spec.width}x{spec.height} at {spec.fps} fps"
    return Finding("model", "ok", f"{spec.name}, {manifest.precision}, {size}, chunks of {spec.chunk_seconds:.2f} s")


def _onnxruntime(bundle: Bundle, facts: Facts) -> Finding:
    precision = bundle.manifest.precision
    gpu = "CUDAExecutionProvider" in facts.providers and bool(facts.machine.driver.devices)
    gpu = gpu and not trouble_on_gpu(bundle.manifest)
    text = "runs on the GPU" if gpu else "runs on the processor"
    if precision == Precision.FP16 and not gpu:
        text += "; half precision is for GPUs, and fp32 is as fast or faster here"
    elif not gpu and (trouble := trouble_on_cpu(bundle.manifest, facts.features)):
        text += f"; {trouble}"
    return Finding("onnxruntime", "ok", text, command_line("rap-run", "--bundle", bundle.root, *_RENDER))


def _plans(bundle: Bundle, plans: Mapping[str, EngineInfo], facts: Facts) -> Finding:
    any_plan = next(iter(plans.values()))
    capabilities = ", ".join(any_plan.compute_capabilities)
    needs = (
        f"{any_plan.backend} {any_plan.version}, {any_plan.profile}, for {any_plan.platform} and compute "
        f"capability {capabilities}"
    )
    if lacking := [name for name in bundle.manifest.graphs if name not in plans]:
        return Finding(any_plan.backend, "problem", f"{needs}: the graph {lacking[0]!r} has no plan in this build")
    try:
        for name, plan in plans.items():
            check_engine(bundle, name, plan, facts.machine)
    except PreflightError as error:
        # What cannot run on a machine without a GPU is not a fault of the machine.
        state: State = "problem" if facts.machine.driver.devices else "absent"
        return Finding(any_plan.backend, state, f"{needs}: does not run here. {error}")
    path = bundle.root / plans["dit"].file
    return Finding(any_plan.backend, "ok", f"{needs}: runs", command_line("rap-run", "--engine", path, *_RENDER))


def _cpu_memory(manifest: Manifest) -> Finding:
    plan, memory = plan_cpu_memory(manifest), available_memory()
    needed = f"at least {as_gib(plan.total())} for one session on the processor"
    if memory is None:
        return Finding("memory", "absent", needed)
    try:
        plan.require(memory[1])
    except MemoryPlanError as error:
        return Finding("memory", "problem", str(error))
    return Finding("memory", "ok", f"{needed} of {as_gib(memory[1])} free, each session {as_gib(plan.session)}")


def _memory(manifest: Manifest, facts: Facts) -> Finding:
    every = builds(manifest)
    plan = plan_memory(manifest, every[0] if every else None)
    parts = _parts(plan)
    if facts.free_bytes is None:
        return Finding("GPU memory", "absent", f"would take about {as_gib(plan.total(1))} for one session: {parts}")
    try:
        plan.require(facts.free_bytes)
    except MemoryPlanError as error:
        return Finding("GPU memory", "problem", f"{error} {parts}")
    fit = plan.sessions(facts.free_bytes)
    return Finding(
        "GPU memory",
        "ok",
        f"about {as_gib(plan.total(1))} for one session of {as_gib(facts.free_bytes)} free, {fit} would fit: {parts}",
    )


def _parts(plan: MemoryPlan) -> str:
    activations = f"{'about ' if plan.estimated else ''}{as_gib(plan.activations)}"
    return (
        f"weights {as_gib(plan.weights)}, activations {activations}, driver about "
        f"{as_gib(plan.context)}, each session {as_gib(plan.session.total)}"
    )


def _selftest(bundle: Bundle) -> Finding:
    if bundle.manifest.golden.frames is None:
        return Finding("self-test", "absent", "the bundle has no golden clip")
    try:
        read_golden(bundle)
    except BundleError as error:
        return Finding("self-test", "problem", str(error))
    command = command_line("rap-run", "--selftest", "--bundle", bundle.root)
    return Finding("self-test", "ok", "compares this machine's frames with PyTorch's", command)
