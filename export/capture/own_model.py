"""Four modules of somebody's own, which fulfil a call signature and are exported as our own networks are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from rap_edge.models.causal.networks import CausalNetworks
from rap_edge.models.networks import Networks
from rap_edge.runtime.errors import ExportError
from rap_edge.runtime.spec import ModelSpec

# Their values mean nothing without scales that no network of PyTorch carries beside them.
_SCALED = frozenset(
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
    if hasattr(torch, name)
)


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """A spec, and modules that do what it says; all tensors are float32.

    With B = 2 under guidance (the conditional row first) and else 1, k latents per chunk, C channels, F frames of a
    chunk, c frames per latent after the first:

    Attributes:
        spec: what differs between models, see docs/spec.md.
        dit: `dit.condition(audio_features)` takes [B, F, window, layers, width] and gives what the audio attention of
            all steps needs, a tuple of keys and values [B, k * tokens, dim], layer by layer, key first; under
            `audio_branches: "separate"` those of the window, then those of the full branch, of the branches that have a
            weight. `dit(latents, reference, timestep, *condition)` takes [B, C, k, h, w] twice and [1] in 0..1000, and
            gives the velocity [B, C, k, h, w].
        vae_encoder: frames [1, 3, T, H, W] in -1..1, for every T = c * n + 1, to normalised latents
            [1, C, n + 1, h, w].
        vae_decoder: latents [1, C, k, h, w] to frames [1, 3, T, H, W], about -1..1, the last of the chunk's or all.
        audio_encoder: a waveform [1, samples] in -1..1 to features [frames, layers, width], one a frame of video.
    """

    spec: ModelSpec
    dit: nn.Module
    vae_encoder: nn.Module
    vae_decoder: nn.Module
    audio_encoder: nn.Module

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """The modules by their names here."""
        return {name: getattr(self, name) for name in ("dit", "vae_encoder", "vae_decoder", "audio_encoder")}

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules, as PyTorch sees them."""
        return tuple(self.parts.values())

    def prepared(self) -> OwnModel:
        """The same modules, on the CPU, in float32 and in eval mode; they are changed in place.

        Raises:
            ExportError: one is no module, has no `condition`, or holds a tensor that cannot be exported.
            SpecError: the spec cannot work.
        """
        if self.spec.validate().caches is not None:
            raise ExportError(
                f"Spec {self.spec.name!r} has caches, which modules of one's own cannot keep; give a spec without."
            )
        for part, module in self.parts.items():
            if not isinstance(module, nn.Module):
                raise ExportError(f"The {part} is a {type(module).__name__} and must be a torch.nn.Module; pass one.")
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                if why := _cannot_be_exported(tensor):
                    raise ExportError(f"The {part}'s tensor {name!r} {why}.")
            module.requires_grad_(False).eval().to("cpu").float()
        if not callable(getattr(self.dit, "condition", None)):
            raise ExportError(
                "The dit has no method `condition`, which gives the keys and values of the sound once for all steps; "
                "add it, as docs/own_model.md shows."
            )
        return self

    def graph_modules(self) -> Mapping[str, nn.Module]:
        """What becomes `conditioner` and `dit` of the five graphs; the others need pixels around them."""
        return {"audio_encoder": self.audio_encoder, "conditioner": Condition(self.dit), "dit": self.dit}


AnyNetworks = Networks | CausalNetworks | OwnModel
"""Whatever gives the contract's graphs."""


class Condition(nn.Module):
    """`condition` of a DiT as a module."""

    def __init__(self, dit: nn.Module) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, audio_features: Tensor) -> tuple[Tensor, ...]:
        """See `OwnModel.dit`."""
        condition = cast("Callable[[Tensor], Iterable[Tensor]]", self.dit.condition)
        return tuple(condition(audio_features))


class OwnVae(nn.Module):
    """An encoder and a decoder as a `Vae`."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def encode(self, frames: Tensor) -> Tensor:
        """See `Vae.encode`."""
        result: Tensor = self.encoder(frames)
        return result

    def decode(self, latents: Tensor, last: int | None = None) -> Tensor:
        """See `Vae.decode`."""
        frames: Tensor = self.decoder(latents)
        return frames if last is None else frames[:, :, -last:]


def _cannot_be_exported(tensor: Tensor) -> str | None:
    """Why a tensor cannot be exported, as the rest of a sentence; None if it can."""
    if tensor.is_meta:
        return "holds no values, as its state dict had none for it; load all of the weights"
    if tensor.dtype in _SCALED:
        return (
            f"is {str(tensor.dtype).removeprefix('torch.')}, of which the scales are elsewhere; multiply them in first"
        )
    if tensor.is_complex():
        return "is complex, which no graph can hold; give cosine and sine as two tensors instead"
    if tensor.is_sparse or tensor.is_quantized:
        return "is sparse or quantised; make it dense in floating point first"
    return None
