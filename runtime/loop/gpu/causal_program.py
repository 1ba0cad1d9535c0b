"""A chunk of a causal model on a device, latent by latent: the loop of `causal_loop`, which is its oracle.

What the networks keep of their past stays in the session's memory on the device. Every network has two buffers for
each state, the past that it reads and the next one that it writes; a copy on the device turns the second into the first
when the latent is done. So the graphs' addresses never change, and what a run leaves behind at a level above 0 is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.contract import cache_names
from ...bundle.manifest import GraphInfo
from ...errors import SpecError
from ...spec import ModelSpec
from ..carry import Cached, LoopState, Past, Sound
from ..causal_loop import MOST_SILENCE
from ..color import match_tables
from ..interface import Reference
from .operations import (
    CHECKED,
    HEAD_WORDS,
    RING,
    At,
    Buffer,
    Copy,
    Lap,
    Operation,
    Run,
    bound_buffers,
    check_finite,
    color_buffers,
    each,
    head_words,
    match_colors,
    solver_step,
)


class CausalProgram:
    """See `Program`. A tensor's buffer has its name, but for the sound, of which the graphs take a latent's worth."""

    sizes: Mapping[str, int] = MappingProxyType({})

    def __init__(self, spec: ModelSpec, graphs: Mapping[str, GraphInfo]) -> None:
        """Lay out the buffers for graphs of the contract.

        Raises:
            SpecError: the spec has no caches.
        """
        if spec.caches is None:
            raise SpecError(f"The model {spec.name!r} has no caches; render it by ChunkProgram.")
        self._spec = spec
        renamed = {"audio_encoder": {"waveform": "block", "audio_features": "features"}}
        renamed["conditioner"] = {"audio_features": "windows"}
        self.bindings: Mapping[str, Mapping[str, str]] = {
            name: {
                tensor.name: renamed.get(name, {}).get(tensor.name, tensor.name)
                for tensor in (*graphs[name].inputs, *graphs[name].outputs)
            }
            for name in ("audio_encoder", "conditioner", "dit", "vae_decoder")
        }
        self._caches = {name: cache_names(graphs[name]) for name in self.bindings}
        buffers = bound_buffers(graphs, self.bindings, self.sizes)
        windows, picture = buffers["windows"].shape, (*spec.image_size, 3)
        self._row = math.prod(windows[2:]) * 4
        buffers |= {
            "waveform": Buffer((spec.window_samples,), "float32"),
            "silence": buffers["past_audio"],
            # The last frames' features, which the next latent hears again.
            "heard": Buffer((2 * spec.caches.look_ahead, *windows[2:]), "float32"),
            "control": Buffer((spec.chunk_latents, HEAD_WORDS), "uint32"),
            "flags": Buffer((len(CHECKED),), "uint32"),
            "shown": Buffer((spec.new_frames, *picture), "uint8"),
            "ring": Buffer((RING, spec.new_frames, *picture), "uint8"),
            **color_buffers(spec, spec.new_frames),
        }
        if spec.color_match:
            buffers["pixels"] = Buffer((spec.new_frames, *picture), "float32")
        self.buffers: Mapping[str, Buffer] = buffers

    @property
    def frames(self) -> At:
        """The frames of all latents, matched if they are to be."""
        return At("shown", 0)

    @property
    def left(self) -> tuple[str, ...]:
        """What every network keeps of its past, and the last features."""
        return (*(f"past_{name}" for names in self._caches.values() for name in names), "heard")

    def constants(self, reference: Reference) -> Mapping[str, NDArray[np.generic]]:
        """The portrait, its latent and its maps, and the colours; see `Program.constants`."""
        result: dict[str, NDArray[np.generic]] = {
            "reference": np.ascontiguousarray(reference.latents),
            "portrait": np.ascontiguousarray(reference.portrait),
            **{name: np.ascontiguousarray(values) for name, values in reference.maps.items()},
        }
        if self._spec.color_match:
            result["color_tables"] = match_tables(reference.portrait)
        return result

    def opening(self) -> tuple[Operation, ...]:
        """Hear silence until it changes nothing any more, and see the portrait in it; see `Program.opening`."""
        return tuple(self._opening())

    def beginning(self, past: Past | None) -> tuple[Operation, ...]:
        """Hear what comes before the chunk, where that was not what was heard; see `Program.beginning`."""
        return tuple(self._priming()) if isinstance(past, Cached) and past.sound is None else ()

    def control_words(self, levels: Sequence[float], seed: int, state: LoopState) -> NDArray[np.uint32]:
        """One row for every latent, which has noise of its own; see `Program.control_words`."""
        latents = self._spec.chunk_latents
        numbers = range(state.index * latents, (state.index + 1) * latents)
        return np.array([head_words(seed, number, has_past=True) for number in numbers], np.uint32)

    def chunk(self, levels: Sequence[float], *, encoded: bool = False) -> tuple[Operation, ...]:
        """See `Program.chunk`.

        Raises:
            SpecError: the spec's solver is none that there are kernels for.
        """
        assert not encoded  # a causal model hears as it goes
        return tuple(self._operations(levels))

    def past_of(self, levels: Sequence[float], left: Mapping[str, NDArray[Any]]) -> Past:
        """The caches, with what was heard; see `Program.past_of`."""
        kept = {name: left[f"past_{name}"].copy() for graph in ("dit", "vae_decoder") for name in self._caches[graph]}
        sound = Sound(left["past_audio"].astype(np.float32), left["heard"].astype(np.float32))
        return Cached(MappingProxyType(kept), sound)

    def contents_of(self, past: Past) -> Mapping[str, NDArray[np.generic]]:
        """See `Program.contents_of`; what was heard is left out where it is heard anew."""
        assert isinstance(past, Cached)  # of this model
        caches: dict[str, NDArray[np.generic]] = {f"past_{name}": values for name, values in past.caches.items()}
        return caches if past.sound is None else caches | {"past_audio": past.sound.state, "heard": past.sound.features}

    def _opening(self) -> Iterator[Operation]:
        buffers, spec = self.buffers, self._spec
        yield each("clear_flags", len(CHECKED), "flags")
        # The memory is zero at first: no past, and silence in `block`.
        for _ in range(MOST_SILENCE):
            yield Run("audio_encoder")
            yield from self._advance("audio_encoder")
        yield Copy("silence", "past_audio", buffers["silence"].nbytes)
        last = At("features", (spec.temporal_compression - 1) * self._row)
        for frame in range(buffers["windows"].shape[1]):
            yield Copy(At("windows", frame * self._row), last, self._row)
        yield Run("conditioner")
        yield Copy("latents", "reference", buffers["latents"].nbytes)
        yield from self._remember()
        yield from self._decode()

    def _priming(self) -> Iterator[Operation]:
        yield Copy("past_audio", "silence", self.buffers["silence"].nbytes)
        for latent in range(-self._spec.priming_latents, 0):
            yield from self._hear(latent)

    def _operations(self, levels: Sequence[float]) -> Iterator[Operation]:
        spec, buffers = self._spec, self.buffers
        yield each("clear_flags", len(CHECKED), "flags")
        for latent in range(spec.chunk_latents):
            yield from self._hear(latent)
            yield check_finite(buffers, "features", "audio_encoder")
            yield Lap("audio_encoder", latent)
            yield Run("conditioner")
            yield Lap("conditioner", latent)
            yield from self._denoise(levels, latent)
            yield Lap("denoise", latent)
            yield from self._decode()
            size = buffers["frames"].nbytes
            yield Copy(At("shown", latent * size), "frames", size)
            yield Lap("vae_decoder", latent)
        if spec.color_match:
            values = math.prod(buffers["shown"].shape)
            yield each("to_pixels", values, "pixels", "shown")
            yield from match_colors(spec, "pixels", spec.new_frames)
            yield each("to_frames", values, "shown", "pixels")
            yield Lap("color_match")

    def _hear(self, latent: int) -> Iterator[Operation]:
        """Take the sound of a latent of the chunk, or of one before it where `latent` is negative."""
        block, before = self.buffers["block"].nbytes, self.buffers["heard"].nbytes
        start = self.buffers["waveform"].nbytes - (self._spec.chunk_latents - latent) * block
        yield Copy("block", At("waveform", start), block)
        yield Run("audio_encoder")
        yield from self._advance("audio_encoder")
        if before:
            yield Copy("windows", "heard", before)
        yield Copy(At("windows", before), "features", self.buffers["features"].nbytes)
        if before:
            yield Copy("heard", At("windows", self._spec.temporal_compression * self._row), before)

    def _denoise(self, levels: Sequence[float], latent: int) -> Iterator[Operation]:
        spec, count = self._spec, math.prod(self.buffers["latents"].shape)
        control = At("control", latent * HEAD_WORDS * 4)
        yield each("normal_noise", count, "latents", control, 0)
        for level, (t, t_next) in enumerate(pairwise(levels)):
            yield from self._velocity(t)
            yield solver_step(spec, count, control, level, t, t_next)
        yield from self._remember()

    def _velocity(self, t: float) -> Iterator[Operation]:
        yield each("set_value", 1, "timestep", self._spec.timestep_of(t))
        yield Run("dit")
        yield check_finite(self.buffers, "velocity", "dit")

    def _remember(self) -> Iterator[Operation]:
        """Show the network the clean latent: its keys and values are the next one's past."""
        yield from self._velocity(0.0)
        yield from self._advance("dit")

    def _decode(self) -> Iterator[Operation]:
        yield Run("vae_decoder")
        yield check_finite(self.buffers, "magnitude", "vae_decoder")
        yield from self._advance("vae_decoder")

    def _advance(self, graph: str) -> Iterator[Copy]:
        for name in self._caches[graph]:
            yield Copy(f"past_{name}", f"next_{name}", self.buffers[f"next_{name}"].nbytes)
