"""One chunk as data: the device buffers of a session, and what is done with them, in order.

In: a spec, the graphs' tensors, a number of steps. Out: buffers, and operations over them. Who carries a program out,
and on what, is not known here; it is the same loop as `chunk_loop`, which is its oracle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...bundle.contract import audio_state_names, carried_sizes
from ...bundle.manifest import GraphInfo
from ...engines.interface import resolved_shape
from ...errors import SpecError
from ...spec import ModelSpec, unknown
from ..carry import Past, Path
from ..color import match_tables
from ..interface import Reference, frame_windows

# Chunks of frames that stay on the device, the last one among them.
RING = 2
# Words of the control buffer before the places of the carried latents; `kernels.cu` has the same numbers.
_HEAD_WORDS = 5
_WORD = 0xFFFFFFFF
_ALIGNMENT = 256


@dataclass(frozen=True)
class Buffer:
    """Device memory of a session: contiguous, zero at first."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def room(self) -> int:
        """Bytes that it takes where every buffer is aligned for the engines."""
        return -(-self.nbytes // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class At:
    """A place in a buffer, so many bytes behind its start."""

    buffer: str
    offset: int


Argument = str | At | int | float
"""A kernel's argument: a buffer by name, a place in one, a 32-bit word, or a float32."""


@dataclass(frozen=True)
class Run:
    """Run a graph on the buffers that `bindings` gives it."""

    graph: str


@dataclass(frozen=True)
class Launch:
    """Launch a kernel.

    Attributes:
        kernel: its name in `kernels.cu`.
        items: values to work on, for kernels that stride over the grid.
        arguments: in the kernel's order.
        blocks: exactly so many blocks, for kernels that work block by block; 0 takes as many as `items` needs.
    """

    kernel: str
    items: int
    arguments: tuple[Argument, ...]
    blocks: int = 0


@dataclass(frozen=True)
class Copy:
    """Copy bytes on the device."""

    target: str | At
    source: str | At
    nbytes: int


@dataclass(frozen=True)
class Lap:
    """A stage of the report ends here."""

    stage: str


Operation = Run | Launch | Copy | Lap
# Stages whose numbers are checked, in the order of the words of `flags`.
CHECKED = ("audio_encoder", "dit", "vae_decoder", "vae_encoder")


def chunk_buffers(spec: ModelSpec, graphs: Mapping[str, GraphInfo]) -> Mapping[str, Buffer]:
    """The buffers of one session whose chunks take the spec's steps or fewer."""
    tensors = {
        (name, tensor.name): tensor for name, graph in graphs.items() for tensor in (*graph.inputs, *graph.outputs)
    }
    result: dict[str, Buffer] = {}
    for graph, names in bindings(spec).items():
        for name, buffer in names.items():
            tensor = tensors[graph, name]
            # The decoder reads the first row of the denoiser's latents in place.
            result.setdefault(buffer, Buffer(resolved_shape(tensor, carried_sizes(spec)), tensor.dtype))
    levels = spec.steps + 1
    channels, _, *cells = spec.latent_shape
    result |= {
        "ring": Buffer((RING, spec.new_frames, *spec.image_size, 3), "uint8"),
        "control": Buffer((_HEAD_WORDS + 2 * levels,), "uint32"),
        "flags": Buffer((len(CHECKED),), "uint32"),
        "windows_index": Buffer((spec.chunk_frames * spec.feature_window,), "uint32"),
        "portrait": Buffer((channels, *cells), "float32"),
    }
    if spec.carry == "noisy":
        path = Buffer((levels, channels, spec.carried_latents, *cells), "float32")
        result |= {"initial": Buffer(spec.latent_shape, "float32"), "path": path, "next_path": path}
    if spec.color_match:
        result["color_tables"] = Buffer((24,), "float32")
        result["color_statistics"] = Buffer((_matched_frames(spec), 6), "float32")
    if spec.frames_dtype != "uint8":
        result["shown"] = Buffer((spec.new_frames, *spec.image_size, 3), "uint8")
    return result


def new_frames_buffer(spec: ModelSpec) -> str:
    """The buffer that ends in a chunk's new frames, uint8."""
    return "frames" if spec.frames_dtype == "uint8" else "shown"


def bindings(spec: ModelSpec) -> Mapping[str, Mapping[str, str]]:
    """By graph, the buffer of each of its tensors; the audio keys and values, and the latents, are shared."""
    states = {name: name for name in audio_state_names(spec)}
    result = {
        "audio_encoder": {"waveform": "waveform", "audio_features": "features"},
        "conditioner": {"audio_features": "windows", **states},
        "dit": {name: name for name in ("latents", "reference", "timestep", "velocity")} | states,
        "vae_decoder": {"latents": "latents", "frames": "frames", "magnitude": "magnitude"},
    }
    if spec.carry == "clean":
        result["vae_encoder"] = {"frames": "last_frames", "latents": "carried"}
    return result


def constants(spec: ModelSpec, reference: Reference) -> Mapping[str, NDArray[np.generic]]:
    """What is written into the buffers once, of the model and the portrait."""
    result: dict[str, NDArray[np.generic]] = {
        "reference": np.ascontiguousarray(np.broadcast_to(reference.latents, (spec.batch, *spec.latent_shape))),
        "portrait": np.ascontiguousarray(reference.latents[0, :, 0]),
        "windows_index": frame_windows(spec).reshape(-1).astype(np.uint32),
    }
    if spec.color_match:
        result["color_tables"] = match_tables(reference.portrait)
    return result


def control_words(levels: Sequence[float], seed: int, chunk: int, past: Past | None, size: int) -> NDArray[np.uint32]:
    """The control buffer of one chunk: seed, index, whether there is a past, and where each level lies in its path.

    Args:
        levels: the chunk's schedule.
        seed: of the noise, taken modulo 2**64.
        chunk: the chunk's index.
        past: what it begins with.
        size: words of the buffer.
    """
    words = np.zeros(size, np.uint32)
    words[:_HEAD_WORDS] = [seed & _WORD, seed >> 32 & _WORD, chunk & _WORD, chunk >> 32 & _WORD, past is not None]
    if isinstance(past, Path):
        for level, t in enumerate(levels):
            upper, share = past.place(t)
            words[_HEAD_WORDS + 2 * level] = upper
            words[_HEAD_WORDS + 2 * level + 1] = np.float32(share).view(np.uint32)
    return words


def chunk_program(spec: ModelSpec, buffers: Mapping[str, Buffer], levels: Sequence[float]) -> tuple[Operation, ...]:
    """What one chunk does, after its waveform and control words have been written.

    Args:
        spec: the model.
        buffers: of `chunk_buffers`.
        levels: the schedule, from 1000 down to 0.

    Raises:
        SpecError: the spec's solver or carry is none that there are kernels for.
    """
    return tuple(_operations(spec, buffers, levels))


def _operations(spec: ModelSpec, buffers: Mapping[str, Buffer], levels: Sequence[float]) -> Iterator[Operation]:
    def check(buffer: str, stage: str) -> Launch:
        count = math.prod(buffers[buffer].shape)
        return _each("check_finite", count, buffer, "flags", CHECKED.index(stage))

    count = math.prod(spec.latent_shape)
    yield _each("clear_flags", len(CHECKED), "flags")
    yield Run("audio_encoder")
    yield check("features", "audio_encoder")
    yield Lap("audio_encoder")
    width = spec.feature_layers * spec.feature_width
    rows = spec.chunk_frames * spec.feature_window
    yield _each("gather_windows", rows * width, "windows", "features", "windows_index", width)
    yield Run("conditioner")
    yield Lap("conditioner")
    yield _each("normal_noise", count, "latents", "control", 0)
    if spec.carry == "noisy":
        yield Copy("initial", "latents", 4 * count)
    for level, (t, t_next) in enumerate(pairwise(levels)):
        yield _carry(spec, level, t)
        if spec.batch > 1:
            yield Copy(At("latents", 4 * count), "latents", 4 * count)
        yield _each("set_value", 1, "timestep", spec.timestep_of(t))
        yield Run("dit")
        yield check("velocity", "dit")
        if spec.batch > 1:
            yield _each("guide", count, "velocity", At("velocity", 4 * count), spec.guidance_scale)
        yield _step(spec, count, level, t, t_next)
    yield _carry(spec, len(levels) - 1, levels[-1])
    if spec.carry == "noisy":
        yield Copy("path", "next_path", len(levels) * buffers["path"].nbytes // buffers["path"].shape[0])
    yield Lap("denoise")
    yield Run("vae_decoder")
    yield check("magnitude", "vae_decoder")
    yield Lap("vae_decoder")
    pixels = spec.pixels
    if spec.color_match:
        matched = _matched_frames(spec)
        frames = _last_frames(spec, matched)
        yield Launch(
            "color_statistics", matched * pixels, (frames, "color_statistics", "color_tables", pixels), matched
        )
        yield _each(
            "color_match", matched * pixels, frames, "color_statistics", "color_tables", spec.color_match, pixels
        )
    if spec.frames_dtype != "uint8":
        yield _each("to_frames", 3 * spec.new_frames * pixels, "shown", _last_frames(spec, spec.new_frames))
    if spec.color_match:
        yield Lap("color_match")
    if spec.carry == "clean":
        yield Copy("last_frames", _last_frames(spec, spec.carried_frames), 12 * spec.carried_frames * pixels)
        yield Run("vae_encoder")
        yield check("carried", "vae_encoder")
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
            raise SpecError(f"The model {spec.name!r} is causal, and chunks of causal models are rendered on the host.")
        case other:
            raise unknown("carry", other)


def _step(spec: ModelSpec, count: int, level: int, t: float, t_next: float) -> Launch:
    match spec.solver:
        case "euler":
            return _euler_step(count, t, t_next)
        case "renoise" if t_next == 0.0:
            # No noise is added to reach level 0, which makes it Euler's step.
            return _euler_step(count, t, t_next)
        case "renoise":
            shares = (t / 1000.0, 1.0 - t_next / 1000.0, t_next / 1000.0)
            return _each("renoise_step", count, "latents", "velocity", "control", *shares, level + 1)
        case other:
            raise unknown("solver", other)


def _euler_step(count: int, t: float, t_next: float) -> Launch:
    return _each("euler_step", count, "latents", "velocity", (t_next - t) / 1000.0)


def _each(kernel: str, count: int, *arguments: Argument) -> Launch:
    return Launch(kernel, count, (*arguments, count))


def _matched_frames(spec: ModelSpec) -> int:
    # A clean carry encodes the frames between as well.
    return spec.decoded_frames if spec.carry == "clean" else spec.new_frames
