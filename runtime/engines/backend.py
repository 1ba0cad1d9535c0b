"""What a backend is: a file with these names inside, which `registry` lists.

A set of engines is loaded in three steps, so that nothing is deserialised that cannot run: `check` compares facts,
whoever loads looks at the memory, `load` loads. `needs` says all that is missing at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from ..bundle.bundle import Bundle
from ..bundle.manifest import EngineInfo
from ..checks.needs import Need
from ..machine.cuda import Cuda, CudaStream
from .interface import DeviceEngine, Engine
from .preflight import Machine, this_machine


def facts_of(machine: Machine | None) -> Callable[[], Machine]:
    """Gives the facts when they are asked for: those that are known, or this machine's, found out once."""
    return cache(this_machine) if machine is None else lambda: machine


@dataclass(frozen=True)
class Request:
    """What is to be loaded.

    Attributes:
        bundle: where the graphs and plans are.
        machine: finds out the facts to check against, see `facts_of`.
        plans: those of one build by graph name; empty where the backend runs the graphs themselves.
        threads: per engine on the processor; None takes every core.
        gpu: whether graphs may run on a GPU.
        allow_host_code: let plans bring code for the CPU.
    """

    bundle: Bundle
    machine: Callable[[], Machine]
    plans: Mapping[str, EngineInfo] = field(default_factory=dict)
    threads: int | None = None
    gpu: bool = True
    allow_host_code: bool = False


@dataclass(frozen=True)
class OnGpu:
    """Engines that work on device memory.

    Attributes:
        engines: by graph name.
        cuda, stream: the GPU, and where all work goes.
        instead: loads them for the processor, for when the rest of a chunk cannot run there; None where they cannot.
    """

    engines: Mapping[str, DeviceEngine]
    cuda: Cuda
    stream: CudaStream
    instead: Callable[[], Loaded] | None = None


@dataclass(frozen=True)
class Loaded:
    """Engines of all graphs.

    Attributes:
        engines: by graph name.
        on_gpu: the same for chunks that stay on a GPU; None where they are rendered on the host.
        notes: what the report should say about them.
    """

    engines: Mapping[str, Engine]
    on_gpu: OnGpu | None = None
    notes: tuple[str, ...] = ()


class Backend(Protocol):
    """The names inside a backend's file."""

    @property
    def RUNS_GRAPHS(self) -> bool:  # noqa: N802 - a constant of a module
        """Whether it runs a bundle's graphs as they are; else it runs plans, which have to be built into the bundle."""

    def check(self, request: Request) -> None:
        """Settle whether it can run here, without loading anything; raises `EngineError`, the first fact's."""

    def needs(self, request: Request) -> tuple[Need, ...]:
        """What `check` asks for, each for itself, in the order in which to mend what is missing."""

    def load(self, request: Request) -> Loaded:
        """Load an engine for every graph, after `check`.

        Raises:
            EngineError: an engine cannot be loaded.
            BundleError: a file is missing or changed, or a graph differs from the manifest.
        """
