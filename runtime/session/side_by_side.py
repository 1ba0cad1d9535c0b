"""How several viewers share the machine: chunk by chunk, or side by side, with a few cores or a stream of a GPU each.

In: a bundle whose engines are loaded. Out: what all sessions share, and what a chunk costs with it. Which way is faster
is measured, and frames that differ by one bit decide against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from ..bundle.bundle import Bundle
from ..engines.interface import Engine
from ..engines.onnxruntime_engine import CPU_ONLY, OnnxRuntimeEngine
from ..engines.onnxruntime_engine import load_engines as load_onnxruntime
from ..engines.paired_engine import PairedEngine
from ..errors import EngineError
from ..loading import LoadedEngines
from ..loop.host_loop import LoopMaker
from ..loop.interface import Reference, encode_reference
from ..loop.on_host import HostLoops
from ..machine.available import available_cores
from ..spec import ModelSpec
from .chunk_cost import ChunkCost, measure_chunks
from .session import Session
from .turns import Turns

# Lanes of a GPU to try, the most first: with more, the host's work for them would take a core.
_LANES = (4, 2)
# Faster by less is not worth a second copy of the weights.
_WORTH = 1.05
# What a chunk may take of the time that it plays, so that a viewer among others keeps its deadlines.
_ROOM = 0.8
# Chunks of silence from all others after which a viewer has the machine alone.
_ALONE_AFTER = 2.0
# More threads never gave more than their number, and never wasted more than half of it.
_LEAST_EFFICIENCY = 0.5
_TOLD = "Several viewers' chunks are rendered"


@dataclass(frozen=True)
class Sharing:
    """What all sessions share.

    Attributes:
        engines: by graph name.
        new_loop: makes a session's chunk loop over them.
        turns: who renders when.
        seconds: of the machine that one chunk takes.
        notes: what was measured, for the report; () if there was nothing to choose.
    """

    engines: Mapping[str, Engine]
    new_loop: LoopMaker
    turns: Turns
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def share_machine(bundle: Bundle, spec: ModelSpec, loaded: LoadedEngines, viewers: int) -> Sharing:
    """Measure what a chunk costs, and choose how viewers share the machine.

    Args:
        bundle: where the graphs are.
        spec: of the sessions.
        loaded: from `bundle`.
        viewers: sessions that are expected to render at the same time, at most.

    Raises:
        NumericalError, EngineError: a chunk cannot be rendered.
        BundleError: a file has changed.
    """
    grey = np.full((*spec.image_size, 3), 128, np.uint8)
    reference = encode_reference(spec, loaded.engines["vae_encoder"], grey)
    in_turn = Sharing(loaded.engines, loaded.new_loop, Turns())
    alone = _measured(in_turn, spec, reference)
    in_turn, found = replace(in_turn, seconds=alone.seconds), ""
    try:
        for how, beside in _ways(bundle, spec, loaded, viewers, alone.seconds / spec.chunk_seconds):
            together, at_once = _measured(beside, spec, reference), beside.turns.at_once
            seconds = together.seconds / at_once
            found = f"{at_once} at a time, {how}, go {alone.seconds / seconds:.2f} times as fast as one"
            if not np.array_equal(alone.frames[0], together.frames[0]):
                return replace(in_turn, notes=(f"{_TOLD} in turn: {found}, but give other frames.",))
            if alone.seconds >= _WORTH * seconds and together.seconds <= _ROOM * spec.chunk_seconds:
                return replace(beside, seconds=seconds, notes=(f"{_TOLD} side by side: {found}.",))
    except EngineError as error:
        found = str(error).rstrip(".")
    return replace(in_turn, notes=(f"{_TOLD} in turn: {found}.",) if found else ())


def _ways(
    bundle: Bundle, spec: ModelSpec, loaded: LoadedEngines, viewers: int, load: float
) -> Iterator[tuple[str, Sharing]]:
    """What may be faster than taking turns, in words too, the most chunks at a time first.

    Raises:
        EngineError: there is no room for the weights, or for another lane.
    """
    if loaded.lanes is not None:
        for count in _LANES:
            if count <= viewers:
                yield "in streams of their own", Sharing(loaded.engines, loaded.lanes(count), Turns(count))
    elif all(isinstance(engine, OnnxRuntimeEngine) and not engine.is_on_gpu for engine in loaded.engines.values()):
        cores = available_cores()
        for threads in _shares(cores, viewers, load):
            turns = Turns(min(cores // threads, viewers), alone_after=_ALONE_AFTER * spec.chunk_seconds)
            parts = load_onnxruntime(bundle, threads, CPU_ONLY)
            yield f"with {threads} of the threads each", _side_by_side(loaded.engines, parts, turns)


def _shares(cores: int, viewers: int, load: float) -> Iterator[int]:
    """Threads per chunk to try, the fewest first; `load` is a chunk's share of real time with all cores."""
    threads = max(cores // viewers, 1)
    while threads < cores and load <= _ROOM:
        if load * cores / threads * _LEAST_EFFICIENCY <= _ROOM:
            yield threads
        threads *= 2


def _side_by_side(whole: Mapping[str, Engine], parts: Mapping[str, Engine], turns: Turns) -> Sharing:
    engines = {name: PairedEngine(engine, parts[name], lambda: turns.alone) for name, engine in whole.items()}
    return Sharing(engines, HostLoops(engines), turns)


def _measured(sharing: Sharing, spec: ModelSpec, reference: Reference) -> ChunkCost:
    """With as many sessions as may render at the same time."""
    turns = sharing.turns
    with ExitStack() as opened:
        loops = [sharing.new_loop(spec, reference, seed) for seed in range(turns.at_once)]
        sessions = [opened.enter_context(Session(spec, loop, spec.sample_rate, turns)) for loop in loops]
        return measure_chunks(sessions)
