"""A backend of the tiny model in plain numpy: the file that somebody would write, with the names of every backend."""

from __future__ import annotations

from helpers.bundles.tiny import tiny_engines

from rap_edge.runtime.checks.needs import Need
from rap_edge.runtime.engines.backend import Loaded, Request

RUNS_GRAPHS = True


def check(request: Request) -> None:
    """It always runs."""


def needs(request: Request) -> tuple[Need, ...]:
    """Nothing."""
    return ()


def load(request: Request) -> Loaded:
    """Functions in place of the graphs."""
    return Loaded(tiny_engines(request.bundle.manifest.spec), notes=("It is slow.",))
