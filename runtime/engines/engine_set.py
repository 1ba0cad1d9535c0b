"""What `--engine` means, in every program: a file of a bundle's engines, or the name of a set of them.

In: a bundle and what was asked for. Out: the set, a backend with an engine for every graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..bundle.bundle import Bundle
from ..bundle.manifest import PLAN_SUFFIX, EngineInfo, Manifest
from ..checks.needs import Need
from ..errors import BundleError, PreflightError
from ..machine.shell import named_command
from . import registry
from .backend import Request, facts_of
from .preflight import Machine, needs_of_unbuilt, refuse_unbuilt, unknown_backend


@dataclass(frozen=True)
class EngineSet:
    """Engines of all graphs.

    Attributes:
        backend: its name in `registry.BACKENDS`.
        plans: by graph name, of one build; empty where the backend runs the graphs themselves.
    """

    backend: str = registry.DEFAULT
    plans: Mapping[str, EngineInfo] = field(default_factory=dict)


def open_model(bundle: str | None, engine: str | None) -> tuple[Bundle, str | None]:
    """The bundle that a program is given, by its folder or by an engine's file alone, and the engine for `find_set`.

    Raises:
        BundleError: it is missing or damaged, the engine's file lies in none, or a set is named without a bundle.
    """
    if bundle is not None:
        return Bundle.open(bundle), engine
    if engine is None or engine in registry.BACKENDS:
        raise BundleError(f"{engine!r} is the name of a set of engines, not of a bundle; pass --bundle DIR too.")
    return Bundle.containing(engine)


def find_set(bundle: Bundle, engine: str | None) -> EngineSet:
    """The set that is asked for.

    Args:
        bundle: whose engines they are.
        engine: a backend, whose newest plans are taken where it runs plans; or the path of a plan or graph, on disk or
            inside the bundle, whose whole set is taken; None takes the graphs in ONNX Runtime.

    Raises:
        PreflightError: its plans have not been built.
        BundleError: it is nothing of this bundle that this version can run.
    """
    manifest = bundle.manifest
    if engine is None:
        return EngineSet()
    if engine in registry.BACKENDS and registry.BACKENDS[engine].RUNS_GRAPHS:
        return EngineSet(engine)
    file = bundle.inside(engine)
    if file in {graph.file for graph in manifest.graphs.values()}:
        return EngineSet()
    every = [item for engines in manifest.engines.values() for item in engines]
    # A name that is both is the backend's.
    named = [item for item in every if item.backend == engine] or [item for item in every if item.file == file]
    if named and named[-1].backend not in registry.BACKENDS:
        raise unknown_backend(named[-1])
    if named:
        return EngineSet(named[-1].backend, plans_of(manifest, named[-1]))
    if engine in registry.BACKENDS:
        raise PreflightError(
            f"The bundle has no plans of {engine!r}; build them with 'rap-export --bundle DIR --engine {engine}'."
        )
    if _is_unbuilt(manifest, file):
        refuse_unbuilt(bundle, file)
    raise BundleError(
        f"{engine!r} is no graph or plan of its bundle that this version can run; choose "
        f"{', '.join(item.file for item in every) or 'one of its ONNX graphs'}."
    )


def set_needs(bundle: Bundle, engine: str | None, machine: Machine | None = None) -> tuple[Need, ...]:
    """What the set that is asked for needs of this machine, of which a program tells all that is missing at once.

    Raises:
        EngineError, BundleError: as `find_set`, where there is no such set.
    """
    facts = facts_of(machine)
    if engine is not None and _is_unbuilt(bundle.manifest, file := bundle.inside(engine)):
        return needs_of_unbuilt(bundle, file, facts())
    chosen = find_set(bundle, engine)
    return registry.BACKENDS[chosen.backend].needs(Request(bundle, facts, chosen.plans))


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


def _is_unbuilt(manifest: Manifest, file: str) -> bool:
    """Whether it is a plan's file that the bundle does not list."""
    return file.endswith(PLAN_SUFFIX) and file not in manifest.files
