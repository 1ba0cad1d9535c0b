"""The loop on the CPU that a model needs."""

from __future__ import annotations

from collections.abc import Mapping

from ..engines.interface import Engine
from ..spec import ModelSpec
from .causal_loop import CausalLoop
from .host_loop import ChunkLoop
from .interface import Loop, Reference


def host_loop(engines: Mapping[str, Engine], spec: ModelSpec, reference: Reference, seed: int) -> Loop:
    """A session's loop over engines that work on the host's memory.

    Args:
        engines: one for every graph of the contract.
        spec: of the model.
        reference: its portrait.
        seed: of the noise.

    Raises:
        EngineError: an engine does not fit.
        NumericalError: a network gave NaN or Inf for the portrait.
    """
    return (CausalLoop if spec.carry == "cached" else ChunkLoop)(engines, spec, reference, seed)
