"""A chunk that is denoised as a whole, on a device: the loop of `host_loop`, which is its oracle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.contract import audio_state_names, carried_sizes
from ...bundle.manifest import GraphInfo
from ...errors import SpecError
from ...spec import ModelSpec, unknown
from ..carry import Cached, LoopState, Past, Path
from ..color import match_tables
from ..interface import Reference, frame_windows
from .operations import (
    CHECKED,
    HEAD_WORDS,
    RING,
    At,
    Buffer,
    Copy,
    Lap,
    Launch,
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


class ChunkProgram:
    """See `Program`. Audio keys and values, and the latents, are shared by the graphs."""

    def __init__(self, spec: ModelSpec, graphs: Mapping[str, GraphInfo]) -> None:
        """Lay out the buffers for graphs of the contract."""
        self._spec, self.sizes = spec, carried_sizes(spec)
        states = {name: name for name in audio_state_names(spec)}
        self.bindings: Mapping[str, Mapping[str, str]] = {
            "audio_encoder": {"waveform": "waveform", "audio_features": "features"},
            "conditioner": {"audio_features": "windows", **states},
            "dit": {name: name for name in ("latents", "reference", "timestep", "velocity")} | states,
            "vae_decoder": {"latents": "latents", "frames": "frames", "magnitude": "magnitude"},
        }
        if spec.carry == "clean":
            self.bindings = {**self.bindings, "vae_encoder": {"frames": "last_frames", "latents": "carried"}}
        buffers, levels = bound_buffers(graphs, self.bindings, self.sizes), spec.steps + 1
        channels, _, *cells = spec.latent_shape
        buffers |= {
            "ring": Buffer((RING, spec.new_frames, *spec.image_size, 3), "uint8"),
            "control": Buffer((HEAD_WORDS + 2 * levels,), "uint32"),
            "flags": Buffer((len(CHECKED),), "uint32"),
            "windows_index": Buffer((spec.chunk_frames * spec.feature_window,), "uint32"),
            "portrait": Buffer((channels, *cells), "float32"),
            **color_buffers(spec, _matched_frames(spec)),
        }
        if spec.carry == "noisy":
            path = Buffer((levels, channels, spec.carried_latents, *cells), "float32")
            buffers |= {"initial": Buffer(spec.latent_shape, "float32"), "path": path, "next_path": path}
        if spec.frames_dtype != "uint8":
            buffers["shown"] = Buffer((spec.new_frames, *spec.image_size, 3), "uint8")
        self.buffers: Mapping[str, Buffer] = buffers

    @property
    def frames(self) -> At:
        """The end of the decoder's frames, or what was rounded of them."""
        name = "frames" if self._spec.frames_dtype == "uint8" else "shown"
        return At(name, self.buffers[name].nbytes - 3 * self._spec.new_frames * self._spec.pixels)

    @property
    def left(self) -> tuple[str, ...]:
        """The levels of a noisy carry, or the encoded frames of a clean one."""
        return ("path" if self._spec.carry == "noisy" else "carried",)

    def constants(self, reference: Reference) -> Mapping[str, NDArray[np.generic]]:
        """The portrait's latents, the windows, and the colours; see `Program.constants`."""
        spec = self._spec
        result: dict[str, NDArray[np.generic]] = {
            "reference": np.ascontiguousarray(np.broadcast_to(reference.latents, (spec.batch, *spec.latent_shape))),
            "portrait": np.ascontiguousarray(reference.latents[0, :, 0]),
            "windows_index": frame_windows(spec).reshape(-1).astype(np.uint32),
        }
        if spec.color_match:
            result["color_tables"] = match_tables(reference.portrait)
        return result

    def opening(self) -> tuple[Operation, ...]:
        """Nothing: the first chunk begins with the portrait's latent."""
        return ()

    def beginning(self, past: Past | None) -> tuple[Operation, ...]:
        """Nothing: a chunk's waveform is all that it hears."""
        return ()

    def control_words(self, levels: Sequence[float], seed: int, state: LoopState) -> NDArray[np.uint32]:
        """Also where each level lies in the past's path; see `Program.control_words`."""
        past = state.past
        words = np.zeros(self.buffers["control"].shape, np.uint32)
        words[:HEAD_WORDS] = head_words(seed, state.index, has_past=past is not None)
        if isinstance(past, Path):
            for level, t in enumerate(levels):
                upper, share = past.place(t)
                words[HEAD_WORDS + 2 * level] = upper
                words[HEAD_WORDS + 2 * level + 1] = np.float32(share).view(np.uint32)
        return words

    def chunk(self, levels: Sequence[float], *, encoded: bool = False) -> tuple[Operation, ...]:
        """See `Program.chunk`.

        Raises:
            SpecError: the spec's solver or carry is none that there are kernels for.
        """
        hear = () if encoded else tuple(self._hear())
        return (each("clear_flags", len(CHECKED), "flags"), *hear, *self._operations(levels))

    def past_of(self, levels: Sequence[float], left: Mapping[str, NDArray[Any]]) -> Past:
        """The levels that were gone through, or clean latents; see `Program.past_of`."""
        latents = left[self.left[0]].astype(np.float32)
        return Path(tuple(levels), latents[: len(levels)]) if self._spec.carry == "noisy" else latents[0]

    def contents_of(self, past: Past) -> Mapping[str, NDArray[np.generic]]:
        """See `Program.contents_of`."""
        assert not isinstance(past, Cached)  # of another model
        return {self.left[0]: past.latents if isinstance(past, Path) else past}

    def _hear(self) -> Iterator[Operation]:
        spec = self._spec
        yield Run("audio_encoder")
        yield check_finite(self.buffers, "features", "audio_encoder")
        yield Lap("audio_encoder")
        width = spec.feature_layers * spec.feature_width
        rows = spec.chunk_frames * spec.feature_window
        yield each("gather_windows", rows * width, "windows", "features", "windows_index", width)

    def _operations(self, levels: Sequence[float]) -> Iterator[Operation]:
        spec, buffers, count = self._spec, self.buffers, math.prod(self._spec.latent_shape)
        yield Run("conditioner")
        yield Lap("conditioner")
        yield each("normal_noise", count, "latents", "control", 0)
        if spec.carry == "noisy":
            yield Copy("initial", "latents", 4 * count)
        for level, (t, t_next) in enumerate(pairwise(levels)):
            yield _carry(spec, level, t)
            if spec.batch > 1:
                yield Copy(At("latents", 4 * count), "latents", 4 * count)
            yield each("set_value", 1, "timestep", spec.timestep_of(t))
            yield Run("dit")
            yield check_finite(buffers, "velocity", "dit")
            if spec.batch > 1:
                yield each("guide", count, "velocity", At("velocity", 4 * count), spec.guidance_scale)
            yield solver_step(spec, count, "control", level, t, t_next)
        yield _carry(spec, len(levels) - 1, levels[-1])
        if spec.carry == "noisy":
            yield Copy("path", "next_path", len(levels) * buffers["path"].nbytes // buffers["path"].shape[0])
        yield Lap("denoise")
        yield Run("vae_decoder")
        yield check_finite(buffers, "magnitude", "vae_decoder")
        yield Lap("vae_decoder")
        if spec.color_match:
            matched = _matched_frames(spec)
            yield from match_colors(spec, _last_frames(spec, matched), matched)
        if spec.frames_dtype != "uint8":
            shown = 3 * spec.new_frames * spec.pixels
            yield each("to_frames", shown, "shown", _last_frames(spec, spec.new_frames))
        if spec.color_match:
            yield Lap("color_match")
        if spec.carry == "clean":
            carried = 12 * spec.carried_frames * spec.pixels
            yield Copy("last_frames", _last_frames(spec, spec.carried_frames), carried)
            yield Run("vae_encoder")
            yield check_finite(buffers, "carried", "vae_encoder")
            yield Lap("vae_encoder")


def _last_frames(spec: ModelSpec, count: int) -> At:
    """Where the last `count` of the decoder's frames of float32 begin."""
    return At("frames", 12 * (spec.decoded_frames - count) * spec.pixels)


def _carry(spec: ModelSpec, level: int, t: float) -> Launch:
    channels, frames, *sides = spec.latent_shape
    cells, carried = math.prod(sides), spec.carried_latents
    shape = (carried, frames, cells, channels)
    match spec.carry:
        case "noisy":
            names = ("latents", "initial", "portrait", "path", "next_path", "control")
            return Launch("carry_noisy", channels * cells, (*names, level, t / 1000.0, *shape))
        case "clean":
            arguments = ("latents", "portrait", "carried", "control", *shape)
            return Launch("carry_clean", channels * carried * cells, arguments)
        case "cached":
            raise SpecError(f"The model {spec.name!r} is causal; render it by CausalProgram.")
        case other:
            raise unknown("carry", other)


def _matched_frames(spec: ModelSpec) -> int:
    # A clean carry encodes the frames between as well.
    return spec.decoded_frames if spec.carry == "clean" else spec.new_frames
