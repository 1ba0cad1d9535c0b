"""Which engines run a bundle: ONNX Runtime, or the plans that were built into it, with a way back.

In: a bundle and a choice. Out: an engine for every graph, and notes for the report where it is not what was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from .bundle.bundle import Bundle
from .bundle.contract import chunk_sizes
from .bundle.manifest import PLAN_SUFFIX, EngineInfo, Manifest
from .checks.needs import Need
from .checks.protobuf_wire import Content
from .engines.eight_bits import trouble_on_cpu, trouble_on_gpu
from .engines.interface import Engine
from .engines.kernel_cache import cache_path
from .engines.onnxruntime_engine import CPU_ONLY, has_cuda, on_gpu
from .engines.onnxruntime_engine import load_engines as load_onnxruntime
from .engines.preflight import (
    Machine,
    check_engine,
    damaged,
    engine_needs,
    needs_of_unbuilt,
    refuse_unbuilt,
    this_machine,
)
from .engines.tensorrt_engine import TensorRtEngine
from .errors import BundleError, EngineError, PreflightError
from .loop.fallback_loop import FallbackLoop
from .loop.gpu.loop import DeviceChunkLoop
from .loop.gpu.memory_budget import plan_memory
from .loop.gpu.shared import Device
from .loop.host_loop import ChunkLoop, LoopMaker
from .loop.interface import Loop, Reference
from .machine.cpu import cpu_features
from .machine.cuda import Cuda
from .machine.nvml import driver_state, free_memory
from .machine.shell import named_command
from .machine.tensorrt_modules import BACKENDS, load_module
from .spec import ModelSpec

ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class LoadedEngines:
    """What runs a bundle.

    Attributes:
        engines: by graph name.
        new_loop: makes a session's chunk loop over them.
        notes: what the report should say about the choice.
    """

    engines: Mapping[str, Engine]
    new_loop: LoopMaker
    notes: tuple[str, ...] = ()


def load_engines(
    bundle: Bundle,
    engine: str | None = None,
    *,
    fallback: bool = False,
    threads: int | None = None,
    allow_host_code: bool = False,
    machine: Machine | None = None,
) -> LoadedEngines:
    """Load an engine for every graph of a bundle.

    Args:
        bundle: where the graphs and plans are.
        engine: "onnxruntime", a backend that the bundle has plans of, or the path inside the bundle of one of its plans
            or graphs; None takes ONNX Runtime. The plans of all graphs come from the same build.
        fallback: go on with ONNX Runtime, and note it, where the plans cannot run or the GPU is lost in mid-stream.
        threads: per ONNX Runtime engine; None takes every core.
        allow_host_code: let plans bring code for the CPU.
        machine: the facts to check plans against; None finds them out.

    Raises:
        PreflightError: the plans cannot run here; names the fact and the command that mends it.
        MemoryPlanError: the GPU's free memory does not even hold weights, activations and one session.
        EngineError: an engine cannot be loaded, or there is no such one.
        BundleError: a file is missing or changed, or a graph differs from the manifest.
    """
    try:
        plans = _chosen_plans(bundle, engine)
        loaded = _load_plans(bundle, plans, machine or this_machine(), allow_host_code) if plans else None
    except EngineError as error:
        if not fallback:
            raise
        return _load_graphs(bundle, threads, machine, f"Fell back to ONNX Runtime: {error}")
    if loaded is None:
        return _load_graphs(bundle, threads, machine)
    if not fallback:
        return loaded
    return replace(loaded, new_loop=FallbackLoop.maker(loaded.new_loop, _OnCpu(bundle, threads).new_loop))


def plan_needs(bundle: Bundle, engine: str | None, machine: Machine | None = None) -> tuple[Need, ...]:
    """What the plan that `load_engines` would take first asks of this machine; nothing where graphs are taken.

    Raises:
        EngineError, BundleError: as `load_engines`, where there is no such engine.
    """
    if engine is not None and _is_unbuilt(bundle.manifest, engine):
        return needs_of_unbuilt(bundle, engine, machine or this_machine())
    for name, plan in _chosen_plans(bundle, engine).items():
        return engine_needs(bundle, name, plan, machine or this_machine())
    return ()


class _OnCpu:
    """The graphs on the CPU, loaded once, when the first session needs them."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        self._bundle, self._threads = bundle, threads
        self._engines: Mapping[str, Engine] = {}
        self._lock = threading.Lock()

    def new_loop(self, spec: ModelSpec, reference: Reference, seed: int) -> Loop:
        with self._lock:
            self._engines = self._engines or load_onnxruntime(self._bundle, self._threads, CPU_ONLY)
        return ChunkLoop(self._engines, spec, reference, seed)


def plans_of(manifest: Manifest, first: EngineInfo) -> Mapping[str, EngineInfo]:
    """The plans of all graphs that were built together with `first`.

    Raises:
        PreflightError: a graph has none.
    """
    result = {}
    # The plan that was asked for comes first, so that it is the one a message names.
    for name in sorted(manifest.graphs, key=lambda graph: first not in manifest.engines.get(graph, ())):
        same = [item for item in manifest.engines.get(name, ()) if item.build == first.build]
        if not same:
            raise PreflightError(
                f"The graph {name!r} has no plan from the build of {first.file!r}; build them again with "
                f"{named_command('rap-export', '--bundle', 'DIR', '--engine', first.backend)}."
            )
        result[name] = same[-1]
    return result


def _is_unbuilt(manifest: Manifest, engine: str) -> bool:
    """Whether an engine is a plan's file that the bundle does not list."""
    return engine.endswith(PLAN_SUFFIX) and engine not in manifest.files


def _chosen_plans(bundle: Bundle, engine: str | None) -> Mapping[str, EngineInfo]:
    manifest = bundle.manifest
    if engine is None or engine == ONNX_RUNTIME or engine in {graph.file for graph in manifest.graphs.values()}:
        return {}
    every = [item for engines in manifest.engines.values() for item in engines]
    named = [item for item in every if engine in (item.file, item.backend)]
    if named:
        return plans_of(manifest, named[-1])
    if engine in BACKENDS:
        raise PreflightError(
            f"The bundle has no plans of {engine!r}; build them with 'rap-export --bundle DIR --engine {engine}'."
        )
    if _is_unbuilt(manifest, engine):
        refuse_unbuilt(bundle, engine)
    raise BundleError(
        f"{engine!r} is no graph or plan of its bundle that this version can run; choose "
        f"{', '.join(item.file for item in every) or 'one of its ONNX graphs'}."
    )


def _load_graphs(bundle: Bundle, threads: int | None, machine: Machine | None, *notes: str) -> LoadedEngines:
    """The graphs in ONNX Runtime: with the chunk on the GPU where it can be, else on the CPU."""
    if has_cuda() and (machine or this_machine()).driver.devices:
        try:
            return _load_graphs_on_gpu(bundle, threads, notes)
        except EngineError as error:
            notes = (*notes, f"The GPU is not used: {error}")
    if trouble := trouble_on_cpu(bundle.manifest, cpu_features()):
        notes = (*notes, f"{bundle.root.name}: {trouble}.")
    engines = load_onnxruntime(bundle, threads, CPU_ONLY)
    return LoadedEngines(engines, partial(ChunkLoop, engines), notes)


def _load_graphs_on_gpu(bundle: Bundle, threads: int | None, notes: tuple[str, ...]) -> LoadedEngines:
    if trouble := trouble_on_gpu(bundle.manifest):
        raise EngineError(f"{bundle.root.name}: {trouble}.")
    cuda = Cuda()
    stream = cuda.stream()
    engines = load_onnxruntime(bundle, threads, on_gpu(stream.handle))
    for name, engine in engines.items():
        for operator, count in engine.beside_gpu.items():
            told = f"{engine.backend} computes {count} {operator} of {name!r} on the processor"
            notes = (*notes, f"{told}; upgrade onnxruntime-gpu.")
    if not all(engine.is_on_gpu for engine in engines.values()):
        raise EngineError("ONNX Runtime cannot load its CUDA libraries; run pip install 'rap-edge[gpu]'.")
    try:
        # cuDNN is loaded by the first convolution only.
        engines["vae_encoder"].prepare(sizes=chunk_sizes(bundle.manifest.spec)).run()
    except EngineError as error:
        raise EngineError(f"{str(error).partition('; ')[0]}; run pip install 'rap-edge[gpu]' for its cuDNN.") from None
    return LoadedEngines(engines, partial(DeviceChunkLoop, Device.open(cuda, stream, engines), engines), notes)


def _load_plans(
    bundle: Bundle, plans: Mapping[str, EngineInfo], machine: Machine, allow_host_code: bool
) -> LoadedEngines:
    # Every plan is checked before the first is deserialised.
    runs_in = {name: check_engine(bundle, name, plan, machine) for name, plan in plans.items()}
    if (free := free_memory(driver_state(), machine.driver.devices)) is not None:
        plan_memory(bundle.manifest, plans).certain().require(free)
    engines: dict[str, TensorRtEngine] = {}
    with ExitStack() as files:
        contents = {name: _mapped(files, bundle, plan) for name, plan in plans.items()}
        gpu, cuda = machine.driver.devices[0], Cuda()
        for name, plan in plans.items():
            module = load_module(runs_in[name])
            if module is None:
                raise PreflightError(f"The module {runs_in[name].module!r} does not load; run {runs_in[name].install}.")
            engines[name] = TensorRtEngine(
                name,
                bundle.manifest.graphs[name],
                contents[name],
                module,
                cuda,
                device=gpu.name,
                cache=cache_path(bundle, name, plan, gpu.compute_capability),
                allow_host_code=allow_host_code,
            )
    return LoadedEngines(engines, partial(DeviceChunkLoop, Device.open(cuda, cuda.stream(), engines), engines))


def _mapped(files: ExitStack, bundle: Bundle, plan: EngineInfo) -> Content:
    """A plan in pages that the system can take back at any time: on a Jetson a copy would take the GPU's memory."""
    try:
        return files.enter_context(bundle.mapped(plan.file))
    except BundleError as error:
        raise damaged(bundle, plan, error) from None
