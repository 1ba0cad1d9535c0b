"""One build of a network by `tensorrt_rtx` or `tensorrt`, which share a Python interface.

In: a `PlanJob`, and the graph as a file or as bytes. Out: a serialised plan that nobody has believed yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rap_edge.runtime.bundle.pending_file import PendingFile
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.machine.tensorrt_modules import TensorRtLog, log_of

from .failure import explain_build, explain_parse
from .job import CURRENT, PlanJob
from .profiles import configure_profile
from .progress import PhaseTree
from .truth.check import check_network
from .truth.claim import Claim
from .turing import rows_without_products

_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


@dataclass(frozen=True)
class BuiltPlan:
    """A plan as TensorRT gave it.

    Attributes:
        serialized: its bytes, as TensorRT's `IHostMemory`.
        claim: what it has to be.
        attentions: of the network, as `check_network` names them.
        layers: of the network.
        activation_bytes: device memory that a run needs besides weights and tensors, 0 if TensorRT did not tell.
    """

    serialized: Any
    claim: Claim
    attentions: tuple[str, ...]
    layers: int
    activation_bytes: int


def build_network(
    job: PlanJob,
    module: Any,
    claim: Claim,
    model: bytes | None,
    on_progress: Callable[[float], None],
    cancelled: Callable[[], bool],
) -> BuiltPlan:
    """Parse, check and build one network.

    Args:
        job: what to build.
        module: imported, of the job's name.
        claim: what the network has to be.
        model: the graph, with its weights beside `job.onnx`; None reads `job.onnx`.
        on_progress: takes the part that is done, 0..1.
        cancelled: asked between the steps of the build, which ends when it says yes.

    Raises:
        ExportError: the graph cannot be parsed or built, or is not what it claims to be; names the layer.
        KeyboardInterrupt: the build was cancelled.
    """
    log = log_of(module)
    log.errors.clear()
    log.facts.clear()
    builder = module.Builder(log.logger)
    # TensorRT 10 needs the flag; since 11 networks are always strongly typed.
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log.logger)
    parsed = parser.parse_from_file(job.onnx) if model is None else parser.parse(model, job.onnx)
    if not parsed:
        raise explain_parse(job, [parser.get_error(index) for index in range(parser.num_errors)], _messages(log))
    attentions = check_network(network, module, claim)
    if "7.5" in job.capabilities:
        rows_without_products(network, module)
    config = _configured(builder, network, module, job)
    config.progress_monitor = monitor = _monitor(module, on_progress, cancelled)
    serialized = builder.build_serialized_network(network, config)
    if cancelled():
        raise KeyboardInterrupt
    if serialized is None:
        raise explain_build(job, _messages(log))
    del monitor
    _save_timing_cache(config, job)
    return BuiltPlan(serialized, claim, attentions, network.num_layers, _activation_bytes(log))


def _messages(log: TensorRtLog) -> list[str]:
    # Without a GPU TensorRT-RTX reports CUDA error 35 and goes on.
    return [message for message in log.errors if "cudaError 35" not in message]


def _activation_bytes(log: TensorRtLog) -> int:
    return max((int(found.group(1)) for fact in log.facts if (found := _ACTIVATIONS.fullmatch(fact))), default=0)


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


def _save_timing_cache(config: Any, job: PlanJob) -> None:
    if job.timing_cache:
        path = Path(job.timing_cache)
        path.parent.mkdir(parents=True, exist_ok=True)
        with PendingFile(path) as file:
            file.write(memoryview(config.get_timing_cache().serialize()))
            file.commit()


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
