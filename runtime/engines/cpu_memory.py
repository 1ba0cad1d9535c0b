"""The memory that a bundle takes on the processor, added up from its manifest before anything is allocated.

In: a manifest, and how much memory there is. Out: what the bundle takes at the very least, or a refusal. Counted are
weights (file sizes), the buffers of a session (the graph contract), and the pixels that the encoder reads and the
decoder gives, which both hold as floating point numbers at least once. Not counted is what else a graph holds while it
runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..bundle.contract import audio_state_names, cache_names, carried_sizes, check_contract, chunk_sizes
from ..bundle.manifest import GraphInfo, Manifest, TensorInfo
from ..errors import MemoryPlanError
from ..machine.available import available_memory
from ..machine.system_memory import as_gib
from ..spec import ModelSpec
from .interface import resolved_shape


@dataclass(frozen=True)
class CpuMemoryPlan:
    """Bytes that a bundle takes at the very least.

    Attributes:
        name: of the model and its precision, for messages.
        weights: files of the graphs.
        pixels: the frames of a run as the VAE's encoder and decoder hold them, which ONNX Runtime keeps between runs.
        session: per session: audio, audio keys and values, latents, caches, frames.
    """

    name: str
    weights: int
    pixels: int
    session: int

    def total(self, sessions: int = 1) -> int:
        """Bytes for so many sessions."""
        return self.weights + self.pixels + sessions * self.session

    def require(self, available: int) -> None:
        """Refuse a bundle of which not one session fits.

        Args:
            available: free bytes of memory.

        Raises:
            MemoryPlanError: says what is needed and what is there.
        """
        if self.total() > available:
            raise MemoryPlanError(
                f"{self.name} needs at least {as_gib(self.total())} of memory and {as_gib(available)} are free; close "
                "other programs, or choose a model with smaller pictures or fewer weights."
            )


def plan_cpu_memory(manifest: Manifest) -> CpuMemoryPlan:
    """The memory that a bundle's ONNX graphs take on the processor.

    Raises:
        BundleError: the graphs are not those of the spec.
    """
    check_contract(manifest)
    spec, graphs = manifest.spec, manifest.graphs
    paths = {path for graph in graphs.values() for path in (graph.file, *graph.data)}
    frames = [
        tensor for name in ("vae_encoder", "vae_decoder") for tensor in _ends(graphs[name]) if tensor.name == "frames"
    ]
    return CpuMemoryPlan(
        name=f"{spec.name!r} in {manifest.precision}",
        weights=sum(manifest.files[path].bytes for path in paths),
        pixels=manifest.precision.width * sum(_count(tensor, chunk_sizes(spec)) for tensor in frames),
        session=_session_bytes(spec, graphs),
    )


def require_memory(manifest: Manifest) -> None:
    """Refuse a bundle whose graphs do not fit into the memory that this process may use.

    Raises:
        MemoryPlanError: as `CpuMemoryPlan.require`.
        BundleError: as `plan_cpu_memory`.
    """
    if (memory := available_memory()) is not None:
        plan_cpu_memory(manifest).require(memory[1])


def _session_bytes(spec: ModelSpec, graphs: Mapping[str, GraphInfo]) -> int:
    """What the loop allocates, the chunk that it hands out and the one that idle motion keeps."""
    states = set(audio_state_names(spec))
    dit = [tensor for tensor in _ends(graphs["dit"]) if tensor.name not in states]
    decoder = [tensor for tensor in _ends(graphs["vae_decoder"]) if tensor.name != "latents" or spec.batch > 1]
    buffers = [*_ends(graphs["audio_encoder"]), *_ends(graphs["conditioner"]), *dit, *decoder]
    if spec.carry == "clean":
        buffers += _ends(graphs["vae_encoder"])
    chunks = 3 * spec.new_frames * spec.pixels * (2 if spec.idle_replays else 1)
    return _bytes(buffers, carried_sizes(spec)) + _kept_bytes(spec, graphs) + chunks


def _kept_bytes(spec: ModelSpec, graphs: Mapping[str, GraphInfo]) -> int:
    """What a loop keeps beside the graphs' buffers and frames."""
    if spec.caches is not None:
        pasts = [
            t for graph in graphs.values() for t in graph.inputs if t.name.removeprefix("past_") in cache_names(graph)
        ]
        # The window of sound; the past that the portrait leaves and that of the last chunk.
        return 4 * spec.window_samples + 2 * _bytes(pasts, {})
    latents = 4 * math.prod(spec.latent_shape)
    # The levels of this chunk and of the last one.
    carried = 2 * len(spec.timesteps) * latents * spec.carried_latents // spec.chunk_latents
    # The noise and the guided velocity.
    return 2 * latents + carried * (spec.carry == "noisy")


def _ends(graph: GraphInfo) -> list[TensorInfo]:
    return [*graph.inputs, *graph.outputs]


def _bytes(tensors: Iterable[TensorInfo], sizes: Mapping[str, int]) -> int:
    return sum(_count(tensor, sizes) * np.dtype(tensor.dtype).itemsize for tensor in tensors)


def _count(tensor: TensorInfo, sizes: Mapping[str, int]) -> int:
    return math.prod(resolved_shape(tensor, sizes))
