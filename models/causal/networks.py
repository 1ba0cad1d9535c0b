"""The three networks of a causal model, their agreement with the spec, and the modules of its five graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rap_edge.runtime.errors import CheckpointError
from rap_edge.runtime.spec import Caches, ModelSpec, PortraitMap

from .audio_encoder import CausalAudioEncoder
from .dit import CausalDiT, Past
from .motion_decoder import MotionDecoder, MotionDecoderConfig


@dataclass(frozen=True)
class CausalNetworks:
    """The networks of one causal model, in eval mode.

    Attributes:
        spec: what the networks were trained for.
        dit: velocity of one latent over the past.
        decoder: frames of one latent, and the portrait's maps.
        audio_encoder: features of one latent's sound.
    """

    spec: ModelSpec
    dit: CausalDiT
    decoder: MotionDecoder
    audio_encoder: CausalAudioEncoder

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All three, as PyTorch sees them."""
        return self.dit, self.decoder, self.audio_encoder

    def graph_modules(self) -> dict[str, nn.Module]:
        """By graph, what takes and gives the contract's tensors in their order."""
        return {
            "audio_encoder": AudioGraph(self.audio_encoder),
            "conditioner": ConditionerGraph(self.dit),
            "dit": DenoiserGraph(self.dit),
            "vae_encoder": PortraitGraph(self.decoder),
            "vae_decoder": FramesGraph(self.decoder),
        }


def caches_of(dit: CausalDiT, decoder: MotionDecoderConfig, encoder: CausalAudioEncoder) -> Caches:
    """What a model of these networks keeps of its past."""
    cells = decoder.image_size // decoder.patch
    return Caches(
        past_latents=dit.config.past,
        look_ahead=(dit.config.audio_frames - decoder.temporal_compression) // 2,
        audio_state=encoder.state_size,
        decoder_state=decoder.state_width,
        portrait_maps=tuple(
            PortraitMap(channels=width, side=cells >> level) for level, width in enumerate(decoder.widths)
        ),
    )


def check_causal_agreement(networks: CausalNetworks) -> CausalNetworks:
    """Return `networks` if their sizes are the spec's.

    Raises:
        CheckpointError: names the first size in which a network and the spec differ.
    """
    spec, dit, decoder = networks.spec, networks.dit.config, networks.decoder.config
    encoder = networks.audio_encoder.config
    for what, found, wanted in (
        ("DiT's channels", dit.channels, spec.latent_channels),
        ("DiT's dim", dit.dim, spec.hidden_dim),
        ("DiT's num_heads", dit.num_heads, spec.num_heads),
        ("DiT's num_layers", dit.num_layers, spec.num_layers),
        ("DiT's audio_width", dit.audio_width, spec.feature_width),
        ("DiT's audio_tokens", dit.audio_tokens, spec.audio_tokens),
        ("decoder's latent_channels", decoder.latent_channels, spec.latent_channels),
        ("decoder's temporal_compression", decoder.temporal_compression, spec.temporal_compression),
        ("decoder's image_size", (decoder.image_size,) * 2, spec.image_size),
        ("audio encoder's width", encoder.width, spec.feature_width),
        ("audio encoder's sample_rate", encoder.sample_rate, spec.sample_rate),
        ("audio encoder's samples_per_frame", encoder.samples_per_frame, spec.samples_per_frame),
        ("latents' size", (1, 1), spec.latent_size),
        ("networks' past", caches_of(networks.dit, decoder, networks.audio_encoder), spec.caches),
    ):
        if found != wanted:
            raise CheckpointError(
                f"The {what} is {found} and spec {spec.name!r} needs {wanted}; use the spec of this checkpoint."
            )
    return networks


class AudioGraph(nn.Module):
    """The audio encoder for one latent's sound."""

    def __init__(self, encoder: CausalAudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Sound [1, samples] and the past [1, S] -> features [frames, 1, width] and the next past."""
        features, state = self.encoder(waveform, past)
        return features.transpose(0, 1), state


class ConditionerGraph(nn.Module):
    """`CausalDiT.conditioner` for one latent."""

    def __init__(self, dit: CausalDiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features [1, frames, 1, width] -> keys and values of every layer."""
        return self.dit.conditioner(features.transpose(1, 2))


class DenoiserGraph(nn.Module):
    """`CausalDiT.denoise` with one positional argument per tensor."""

    def __init__(self, dit: CausalDiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, latents: Tensor, reference: Tensor, timestep: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See `CausalDiT.denoise`; `tensors` are the audio state and then the past."""
        past = Past(*tensors[-3:])
        velocity, later = self.dit.denoise(latents, reference, timestep, tensors[:-3], past)
        return velocity, *later


class PortraitGraph(nn.Module):
    """A portrait's latent, which is that of no motion, and its maps."""

    static: Tensor

    def __init__(self, decoder: MotionDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        with torch.no_grad():
            self.register_buffer("static", decoder.static().clone(), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """uint8 [1, H, W, 3] -> latents [1, C, 1, 1, 1], and the maps [1, channels, side, side]."""
        _, *maps = self.decoder.reference(_pixels(frames))
        # The latent has to follow from the frames for whoever traces it.
        return self.static + 0.0 * maps[-1].mean(), *maps


class FramesGraph(nn.Module):
    """uint8 frames of one latent and their mean magnitude [1] in levels."""

    def __init__(self, decoder: MotionDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor, portrait: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents [1, C, 1, 1, 1], portrait uint8 [1, H, W, 3], maps and the past [1, 1, S].

        Returns:
            Frames uint8 [T, H, W, 3], magnitude [1], and the next past.
        """
        maps: Sequence[Tensor] = tensors[:-1]
        frames, state = self.decoder.decode(latents, tensors[-1], (_pixels(portrait), *maps))
        levels = frames.squeeze(0) * 127.5 + 127.5
        pictures = levels.round().clamp(0.0, 255.0).permute(1, 2, 3, 0)
        return pictures.to(torch.uint8), levels.abs().mean(-1).mean(-1).mean().reshape(1), state


def _pixels(frames: Tensor) -> Tensor:
    """uint8 [T, H, W, 3] -> [T, 3, H, W] in -1..1."""
    # TensorRT allows uint8 at a graph's ends alone, so the cast comes first.
    return (frames.float() * (1.0 / 127.5) - 1.0).permute(0, 3, 1, 2)
