"""The program that a model's chunks need."""

from __future__ import annotations

from collections.abc import Mapping

from ...bundle.manifest import GraphInfo
from ...spec import ModelSpec
from .causal_program import CausalProgram
from .operations import Program
from .program import ChunkProgram


def program_of(spec: ModelSpec, graphs: Mapping[str, GraphInfo]) -> Program:
    """How one session's chunks are rendered on a device.

    Args:
        spec: of the model.
        graphs: of the contract, by name.
    """
    return (CausalProgram if spec.carry == "cached" else ChunkProgram)(spec, graphs)
