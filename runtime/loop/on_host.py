"""The loop on the CPU that a model needs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from ..engines.interface import Engine
from ..spec import ModelSpec
from .causal_loop import CausalLoop, Opening
from .host_loop import ChunkLoop
from .interface import Loop, Reference


class HostLoops:
    """Makes sessions' loops over engines that work on the host's memory.

    A causal model's networks are shown a portrait once, and all its sessions begin with what that left.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        """`engines`: one for every graph of the contract."""
        self._engines = engines
        self._openings: WeakKeyDictionary[Reference, Opening] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, spec: ModelSpec, reference: Reference, seed: int) -> Loop:
        """A session's loop; see `host_loop`."""
        if spec.carry != "cached":
            return host_loop(self._engines, spec, reference, seed)
        with self._lock:
            opening = self._openings.get(reference)
        loop = CausalLoop(self._engines, spec, reference, seed, opening)
        with self._lock:
            self._openings[reference] = loop.opening
        return loop


def host_loop(engines: Mapping[str, Engine], spec: ModelSpec, reference: Reference, seed: int) -> Loop:
    """One session's loop over engines that work on the host's memory; see `HostLoops` for several.

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
