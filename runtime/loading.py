"""Which engines run a bundle, and the loop over them: those that were asked for, with a way back to ONNX Runtime.

In: a bundle and a choice. Out: an engine for every graph, and notes for the report where it is not what was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from .bundle.bundle import Bundle
from .engines import registry
from .engines.backend import Loaded, Request, facts_of
from .engines.engine_set import EngineSet, find_set
from .engines.interface import Engine
from .engines.preflight import Machine
from .errors import EngineError
from .loop.fallback_loop import FallbackLoop
from .loop.gpu.lanes import Lanes
from .loop.gpu.loop import DeviceChunkLoop
from .loop.gpu.memory_budget import plan_memory
from .loop.gpu.shared import Device
from .loop.host_loop import LoopMaker
from .loop.interface import Loop, Reference
from .loop.on_host import HostLoops, host_loop
from .machine.nvml import driver_state, free_memory
from .spec import ModelSpec


@dataclass(frozen=True)
class LoadedEngines:
    """What runs a bundle.

    Attributes:
        engines: by graph name.
        new_loop: makes a session's chunk loop over them.
        notes: what the report should say about the choice.
        lanes: makes the loop maker that lets so many sessions render at the same time, where a GPU can.
    """

    engines: Mapping[str, Engine]
    new_loop: LoopMaker
    notes: tuple[str, ...] = ()
    lanes: Callable[[int], LoopMaker] | None = None


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
        engine: a backend, or the path of a plan, see `find_set`; None takes ONNX Runtime.
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
    request = Request(bundle, facts_of(machine), threads=threads, allow_host_code=allow_host_code)
    default = EngineSet()
    try:
        chosen = find_set(bundle, engine)
        loaded = None if chosen == default else _load(chosen, request)
    except EngineError as error:
        if not fallback:
            raise
        instead = _load(default, request)
        return replace(instead, notes=(f"Fell back to ONNX Runtime: {error}", *instead.notes))
    if loaded is None:
        return _load(default, request)
    if not fallback:
        return loaded
    on_cpu, lanes = _OnCpu(request), loaded.lanes
    return replace(
        loaded,
        new_loop=FallbackLoop.maker(loaded.new_loop, on_cpu.new_loop),
        lanes=lanes and (lambda count: FallbackLoop.maker(lanes(count), on_cpu.new_loop)),
    )


def _load(chosen: EngineSet, request: Request) -> LoadedEngines:
    """Check, look at the memory, load, and make the loop for where the engines are."""
    backend, request = registry.BACKENDS[chosen.backend], replace(request, plans=chosen.plans)
    backend.check(request)
    if request.plans and (free := free_memory(driver_state(), request.machine().driver.devices)) is not None:
        plan_memory(request.bundle.manifest, request.plans).certain().require(free)
    loaded = backend.load(request)
    if (there := loaded.on_gpu) is None:
        return _on_host(loaded)
    try:
        device = Device.open(there.cuda, there.stream, there.engines)
    except EngineError as error:
        if there.instead is None:
            raise
        instead = _on_host(there.instead())
        return replace(instead, notes=(f"The GPU is not used: {error}", *instead.notes))
    new_loop = partial(DeviceChunkLoop, device, there.engines)
    # ONNX Runtime's sessions share the handles of CUDA's libraries, which take no two threads at once.
    lanes = (lambda count: Lanes(device, there.engines, count).new_loop) if request.plans else None
    return LoadedEngines(loaded.engines, new_loop, loaded.notes, lanes)


def _on_host(loaded: Loaded) -> LoadedEngines:
    return LoadedEngines(loaded.engines, HostLoops(loaded.engines), loaded.notes)


class _OnCpu:
    """The graphs in ONNX Runtime on the CPU, loaded once, when the first session needs them."""

    def __init__(self, request: Request) -> None:
        self._request = replace(request, gpu=False)
        self._engines: Mapping[str, Engine] = {}
        self._lock = threading.Lock()

    def new_loop(self, spec: ModelSpec, reference: Reference, seed: int) -> Loop:
        with self._lock:
            self._engines = self._engines or registry.BACKENDS[registry.DEFAULT].load(self._request).engines
        return host_loop(self._engines, spec, reference, seed)
