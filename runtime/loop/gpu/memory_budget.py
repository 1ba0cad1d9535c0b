"""The memory of a GPU, planned before anything is loaded into it.

In: a bundle's manifest, and how much memory there is. Out: what weights, activations and each session take, how many
sessions fit, and a refusal with a suggestion where they do not. Weights, audio keys and values, latents and frames are
exact: they follow from file sizes and the graph contract. Activations of plans are what their builder told. Those of
ONNX graphs, and the driver's own share, are estimates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...bundle.contract import audio_state_names, check_contract
from ...bundle.manifest import EngineInfo, Manifest
from ...bundle.precision import Precision
from ...errors import MemoryPlanError
from ...machine.system_memory import MIB, as_gib
from ...spec import ModelSpec
from .programs import program_of

# An estimate: CUDA's context with the kernels that it loads.
CONTEXT_BYTES = 400 * MIB
# Estimates. Live values per token in hidden widths: residual, norm, both ends of a feed-forward of 6 times the width.
TOKEN_WIDTHS = 14
# Live values per pixel of the decoder.
PIXEL_VALUES = 32
# Buffers of a session that are neither audio keys and values nor latents and what is small.
_PARTS = {
    "waveform": "audio",
    "block": "audio",
    "features": "audio",
    "windows": "audio",
    "windows_index": "audio",
    "past_audio": "audio",
    "next_audio": "audio",
    "silence": "audio",
    "heard": "audio",
    "frames": "frames",
    "last_frames": "frames",
    "pixels": "frames",
    "shown": "frames",
    "ring": "frames",
}


@dataclass(frozen=True)
class SessionMemory:
    """Bytes that one session holds on the device: exact.

    Attributes:
        audio_state: audio keys and values of all layers, computed once per chunk, or once per latent.
        latents: the chunk's and the reference's latents, the velocity, what is carried, be it latents or caches, a
            causal decoder's portrait, and what is small.
        audio: waveform and audio features, and what the audio encoder keeps of its past.
        frames: a chunk of decoded frames, what a clean carry encodes again, and the ring for renderers.
    """

    audio_state: int
    latents: int
    audio: int
    frames: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.audio_state + self.latents + self.audio + self.frames


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a bundle takes on a device.

    Attributes:
        name: of the model and its precision, for messages.
        precision: of the graphs.
        weights: graph or plan files; exact for plans, about right for ONNX graphs.
        activations: one arena that all engines share, as large as the largest needs.
        context: the driver's own; an estimate.
        session: per session.
        estimated: whether the activations are an estimate too.
    """

    name: str
    precision: Precision
    weights: int
    activations: int
    context: int
    session: SessionMemory
    estimated: bool = True

    @property
    def shared(self) -> int:
        """Bytes that are needed once, however many sessions there are."""
        return self.weights + self.activations + self.context

    def total(self, sessions: int) -> int:
        """Bytes for so many sessions."""
        return self.shared + sessions * self.session.total

    def sessions(self, available: int) -> int:
        """How many sessions fit into `available` bytes; 0 if not one does."""
        return max(available - self.shared, 0) // self.session.total

    def certain(self) -> MemoryPlan:
        """What is needed at the very least: the plan without its estimates."""
        return dataclasses.replace(self, activations=0 if self.estimated else self.activations, context=0)

    def require(self, available: int, sessions: int = 1) -> None:
        """Refuse what does not fit.

        Args:
            available: free bytes of the device.
            sessions: at the same time.

        Raises:
            MemoryPlanError: says what is needed, what is there, and what would fit.
        """
        if self.total(sessions) <= available:
            return
        fit = self.sessions(available)
        if fit:
            cure = f"open at most {fit} {_plural(fit, 'session')} on this GPU"
        elif self.precision == Precision.FP32:
            cure = "export with --precision fp16, which takes about half, or run on the CPU"
        else:
            cure = "free the GPU's memory, choose one with more, or run on the CPU"
        raise MemoryPlanError(
            f"{sessions} {_plural(sessions, 'session')} of {self.name} {'needs' if sessions == 1 else 'need'} about "
            f"{as_gib(self.total(sessions))} and {as_gib(available)} are free; {cure}."
        )


def plan_memory(manifest: Manifest, plans: Mapping[str, EngineInfo] | None = None) -> MemoryPlan:
    """The memory that a bundle takes.

    Args:
        manifest: of the bundle.
        plans: by graph name, the built engine that runs it; None counts the ONNX graphs.

    Raises:
        BundleError: the graphs are not those of the spec.
    """
    check_contract(manifest)
    files = manifest.files
    if plans:
        weights = sum(files[plan.file].bytes for plan in plans.values())
    else:
        weights = sum(files[path].bytes for graph in manifest.graphs.values() for path in (graph.file, *graph.data))
    spec, width = manifest.spec, manifest.precision.width
    told = [plan.activation_bytes for plan in (plans or {}).values()]
    known = bool(told) and all(told)
    return MemoryPlan(
        name=f"{spec.name!r} in {manifest.precision}",
        precision=manifest.precision,
        weights=weights,
        activations=max(told if known else (_denoiser_activations(spec, width), _decoder_activations(spec, width))),
        context=CONTEXT_BYTES,
        session=session_memory(manifest),
        estimated=not known,
    )


def session_memory(manifest: Manifest) -> SessionMemory:
    """What `DeviceChunkLoop` allocates for one session of the bundle."""
    buffers = program_of(manifest.spec, manifest.graphs).buffers
    parts = dict.fromkeys(("audio_state", "audio", "frames", "latents"), 0)
    states = audio_state_names(manifest.spec)
    for name, buffer in buffers.items():
        part = "audio_state" if name in states else _PARTS.get(name, "latents")
        parts[part] += buffer.room
    return SessionMemory(**parts)


def _denoiser_activations(spec: ModelSpec, width: int) -> int:
    latents = 1 if spec.caches is not None else spec.chunk_latents
    tokens = spec.batch * latents * math.prod(spec.latent_size)
    return tokens * spec.hidden_dim * TOKEN_WIDTHS * width


def _decoder_activations(spec: ModelSpec, width: int) -> int:
    frames = spec.temporal_compression if spec.caches is not None else spec.chunk_frames
    return frames * spec.pixels * PIXEL_VALUES * width


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
