"""A chunk as data: the device buffers of a session, operations over them, and what every model's program is.

Who carries a program out, and on what, is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import GraphInfo
from ...engines.interface import resolved_shape
from ...spec import ModelSpec, unknown
from ..carry import LoopState, Past
from ..interface import Reference

# Chunks of frames that stay on the device, the last one among them.
RING = 2
# Words of the control buffer before the places of the carried latents; `kernels.cu` has the same numbers.
HEAD_WORDS = 5
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
    """A stage of the report ends here; `part` counts the times that it is gone through."""

    stage: str
    part: int = 0


Operation = Run | Launch | Copy | Lap
# Stages whose numbers are checked, in the order of the words of `flags`.
CHECKED = ("audio_encoder", "dit", "vae_decoder", "vae_encoder")


class Program(Protocol):
    """How one model's chunks are rendered on a device."""

    @property
    def buffers(self) -> Mapping[str, Buffer]:
        """Of one session whose chunks take the spec's steps or fewer."""

    @property
    def bindings(self) -> Mapping[str, Mapping[str, str]]:
        """By graph, the buffer of each of its tensors."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Of the graphs' free dimensions."""

    @property
    def frames(self) -> At:
        """Where a chunk's new frames are when it is done, uint8 [T, H, W, 3]."""

    @property
    def left(self) -> tuple[str, ...]:
        """The buffers in which a chunk leaves its past."""

    def constants(self, reference: Reference) -> Mapping[str, NDArray[np.generic]]:
        """What is written into the buffers once, of the model and the portrait."""

    def opening(self) -> tuple[Operation, ...]:
        """What is done once, when a session opens; it leaves the first chunk's past. Nothing where that is None."""

    def beginning(self, past: Past | None) -> tuple[Operation, ...]:
        """What precedes a chunk after `past`, once the chunk's waveform is there."""

    def control_words(self, levels: Sequence[float], seed: int, state: LoopState) -> NDArray[np.uint32]:
        """The control buffer of the chunk after `state`.

        Args:
            levels: the chunk's schedule.
            seed: of the noise, taken modulo 2**64.
            state: where the session stands.
        """

    def chunk(self, levels: Sequence[float], *, encoded: bool = False) -> tuple[Operation, ...]:
        """What a chunk does, after its waveform, control words and past have been written.

        Args:
            levels: the schedule, from 1000 down to 0.
            encoded: whether the sound's features have been written instead of its waveform; not for a causal model.
        """

    def past_of(self, levels: Sequence[float], left: Mapping[str, NDArray[Any]]) -> Past:
        """What a chunk of schedule `levels` leaves, of the contents of the buffers `left`, which are copied."""

    def contents_of(self, past: Past) -> Mapping[str, NDArray[np.generic]]:
        """What has to be in the buffers before a chunk after `past`."""


def bound_buffers(
    graphs: Mapping[str, GraphInfo], bindings: Mapping[str, Mapping[str, str]], sizes: Mapping[str, int]
) -> dict[str, Buffer]:
    """The buffers of the graphs' tensors; of those that share one, the first has its shape."""
    tensors = {
        (name, tensor.name): tensor for name, graph in graphs.items() for tensor in (*graph.inputs, *graph.outputs)
    }
    result: dict[str, Buffer] = {}
    for graph, names in bindings.items():
        for name, buffer in names.items():
            tensor = tensors[graph, name]
            # The decoder reads the first row of the denoiser's latents in place.
            result.setdefault(buffer, Buffer(resolved_shape(tensor, sizes), tensor.dtype))
    return result


def head_words(seed: int, number: int, *, has_past: bool) -> list[int]:
    """The first words of the control buffer: the noise's seed and number, and whether there is a past."""
    return [seed & _WORD, seed >> 32 & _WORD, number & _WORD, number >> 32 & _WORD, has_past]


def each(kernel: str, count: int, *arguments: Argument) -> Launch:
    """A kernel over `count` values, which are its last argument."""
    return Launch(kernel, count, (*arguments, count))


def check_finite(buffers: Mapping[str, Buffer], buffer: str, stage: str) -> Launch:
    """Raise the stage's flag where the buffer holds a NaN or Inf."""
    return each("check_finite", math.prod(buffers[buffer].shape), buffer, "flags", CHECKED.index(stage))


def solver_step(spec: ModelSpec, count: int, control: Argument, level: int, t: float, t_next: float) -> Launch:
    """The solver's step from level t to t_next over `count` values of the latents; see `solvers.step_of`."""
    match spec.solver:
        case "euler":
            return _euler_step(count, t, t_next)
        case "renoise" if t_next == 0.0:
            # No noise is added to reach level 0, which makes it Euler's step.
            return _euler_step(count, t, t_next)
        case "renoise":
            shares = (t / 1000.0, 1.0 - t_next / 1000.0, t_next / 1000.0)
            return each("renoise_step", count, "latents", "velocity", control, *shares, level + 1)
        case other:
            raise unknown("solver", other)


def color_buffers(spec: ModelSpec, count: int) -> dict[str, Buffer]:
    """What matching the colours of `count` frames takes besides them."""
    if not spec.color_match:
        return {}
    return {"color_tables": Buffer((24,), "float32"), "color_statistics": Buffer((count, 6), "float32")}


def match_colors(spec: ModelSpec, frames: Argument, count: int) -> Iterator[Launch]:
    """Match the colours of `count` frames of float32 in place."""
    pixels = spec.pixels
    yield Launch("color_statistics", count * pixels, (frames, "color_statistics", "color_tables", pixels), count)
    yield each("color_match", count * pixels, frames, "color_statistics", "color_tables", spec.color_match, pixels)


def _euler_step(count: int, t: float, t_next: float) -> Launch:
    return each("euler_step", count, "latents", "velocity", (t_next - t) / 1000.0)
