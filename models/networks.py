"""The three networks of a model, their sizes, their agreement with the spec, and fresh ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from rap_edge.runtime.errors import CheckpointError
from rap_edge.runtime.spec import ModelSpec

from .audio_encoder import AudioEncoder, AudioEncoderConfig
from .dit import DiT, DiTConfig
from .presets import RAP_SMALL
from .vaes.interface import Vae
from .vaes.ltx import LtxVae
from .vaes.ltx_config import LtxVaeConfig
from .vaes.wan import WanVae, WanVaeConfig

if TYPE_CHECKING:
    from .nano_vae import NanoVAEConfig


@dataclass(frozen=True)
class Networks:
    """The networks of one model, in eval mode.

    Attributes:
        spec: what the networks were trained for.
        dit: velocity of latents.
        vae: a module with `encode` and `decode` (see `Vae`) and a `config`.
        audio_encoder: features of speech.
    """

    spec: ModelSpec
    dit: DiT
    vae: Vae
    audio_encoder: AudioEncoder

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All three, as PyTorch sees them."""
        assert isinstance(self.vae, nn.Module)  # `Vae` says what else it has
        return self.dit, self.vae, self.audio_encoder


@dataclass(frozen=True)
class NetworkConfigs:
    """Sizes of the networks of one model."""

    dit: DiTConfig
    vae: LtxVaeConfig | WanVaeConfig | NanoVAEConfig
    audio_encoder: AudioEncoderConfig


def published_configs(spec: ModelSpec) -> NetworkConfigs:
    """The published architecture at the spec's sizes: Wan 2.1's ratios, its VAE or LTX 0.9.0's, wav2vec 2.0.

    For `flashhead-lite`, `flashhead-pro` and `rap-1.3b` these are the published sizes.

    Raises:
        CheckpointError: the spec's compression is neither VAE's, or its sizes do not split into heads.
    """
    vae: LtxVaeConfig | WanVaeConfig
    match (spec.spatial_compression, spec.temporal_compression):
        case (32, 8):
            vae, patch = LtxVaeConfig(latent_channels=spec.latent_channels), 1
        case (8, 4) if spec.latent_channels == WanVaeConfig().z_dim:
            vae, patch = WanVaeConfig(), 2
        case compression:
            raise CheckpointError(
                f"Spec {spec.name!r} compresses {compression[0]}x spatially and {compression[1]}x in time, to "
                f"{spec.latent_channels} channels; the LTX VAE does it 32x and 8x and Wan's 8x and 4x to 16; give "
                "network configs of your own."
            )
    return NetworkConfigs(
        dit=dit_config(spec, ffn_dim=8960 * spec.hidden_dim // 1536, patch_side=patch),
        vae=vae.validate(),
        audio_encoder=AudioEncoderConfig(
            hidden_size=spec.feature_width,
            num_hidden_layers=spec.feature_layers,
            num_attention_heads=max(spec.feature_width // 64, 1),
            intermediate_size=4 * spec.feature_width,
            samples_per_frame=spec.samples_per_frame,
        ).validate(),
    )


def small_configs(spec: ModelSpec) -> NetworkConfigs:
    """Sizes of our own for any machine: feed-forwards of three widths, `nano_vae` and a short wav2vec 2.0.

    With `rap-small` a chunk of 0.96 s takes 46 GFLOP, where the LTX VAE's decoder alone takes 1,900.
    """
    from .nano_vae import NanoVAEConfig

    return NetworkConfigs(
        dit=dit_config(spec, ffn_dim=3 * spec.hidden_dim, audio_hidden=192),
        vae=NanoVAEConfig(
            latent_channels=spec.latent_channels, temporal_compression=spec.temporal_compression
        ).validate(),
        audio_encoder=AudioEncoderConfig(
            conv_dim=(96, 96, 128, 128, 128, 128, 128),
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            hidden_size=spec.feature_width,
            num_hidden_layers=spec.feature_layers,
            num_attention_heads=max(spec.feature_width // 32, 1),
            intermediate_size=3 * spec.feature_width,
            num_conv_pos_embeddings=15,
            num_conv_pos_embedding_groups=8,
            samples_per_frame=spec.samples_per_frame,
        ).validate(),
    )


def dit_config(
    spec: ModelSpec,
    *,
    ffn_dim: int,
    freq_dim: int = 256,
    eps: float = 1e-6,
    audio_hidden: int = 512,
    patch_side: int = 1,
) -> DiTConfig:
    """The DiT that the spec describes; the arguments are what a spec does not say."""
    return DiTConfig(
        dim=spec.hidden_dim,
        in_dim=2 * spec.latent_channels,
        out_dim=spec.latent_channels,
        ffn_dim=ffn_dim,
        freq_dim=freq_dim,
        num_heads=spec.num_heads,
        num_layers=spec.num_layers,
        alpha=spec.alpha,
        eps=eps,
        audio_layers=spec.feature_layers,
        audio_width=spec.feature_width,
        feature_window=spec.feature_window,
        temporal_compression=spec.temporal_compression,
        audio_tokens=spec.audio_tokens,
        audio_hidden=audio_hidden,
        audio_branches=spec.audio_branches,
        patch_side=patch_side,
    ).validate()


def check_agreement(networks: Networks) -> Networks:
    """Return `networks` if their sizes are the spec's.

    Raises:
        CheckpointError: names the first size in which a network and the spec differ.
    """
    spec, dit, encoder = networks.spec, networks.dit.config, networks.audio_encoder.config
    vae = vae_config(networks.vae)
    for what, found, wanted in (
        ("DiT's in_dim", dit.in_dim, 2 * spec.latent_channels),
        ("DiT's out_dim", dit.out_dim, spec.latent_channels),
        ("DiT's dim", dit.dim, spec.hidden_dim),
        ("DiT's num_heads", dit.num_heads, spec.num_heads),
        ("DiT's num_layers", dit.num_layers, spec.num_layers),
        ("DiT's alpha", dit.alpha, spec.alpha),
        ("DiT's audio_branches", dit.audio_branches, spec.audio_branches),
        ("DiT's audio_layers", dit.audio_layers, spec.feature_layers),
        ("DiT's audio_width", dit.audio_width, spec.feature_width),
        ("DiT's feature_window", dit.feature_window, spec.feature_window),
        ("DiT's temporal_compression", dit.temporal_compression, spec.temporal_compression),
        ("DiT's audio_tokens", dit.audio_tokens, spec.audio_tokens),
        ("remainder of latent cells over DiT patches", [n % dit.patch_side for n in spec.latent_size], [0, 0]),
        ("VAE's latent_channels", vae.latent_channels, spec.latent_channels),
        ("VAE's spatial compression", vae.spatial_compression, spec.spatial_compression),
        ("VAE's temporal compression", vae.temporal_compression, spec.temporal_compression),
        ("audio encoder's hidden_size", encoder.hidden_size, spec.feature_width),
        ("audio encoder's num_hidden_layers", encoder.num_hidden_layers, spec.feature_layers),
        ("audio encoder's samples_per_frame", encoder.samples_per_frame, spec.samples_per_frame),
    ):
        if found != wanted:
            raise CheckpointError(
                f"The {what} is {found} and spec {spec.name!r} needs {wanted}; use the spec of this checkpoint."
            )
    return networks


def vae_config(vae: Vae) -> LtxVaeConfig | WanVaeConfig | NanoVAEConfig:
    """The config of a VAE module."""
    return cast("LtxVaeConfig | WanVaeConfig | NanoVAEConfig", cast("nn.Module", vae).config)


def random_networks(
    spec: ModelSpec, seed: int, dtype: torch.dtype = torch.float32, configs: NetworkConfigs | None = None
) -> Networks:
    """Fresh networks with weights that depend on `seed` alone; for a spec whose weights are not published.

    Args:
        spec: the model.
        seed: of the weights.
        dtype: of the weights; they are drawn in it, so fp16 needs half the memory.
        configs: sizes; None takes `small_configs` for `rap-small` and `published_configs` for every other spec.

    Raises:
        CheckpointError: the sizes cannot work or do not agree with the spec.
    """
    sizes = configs or (small_configs(spec) if spec.name == RAP_SMALL.name else published_configs(spec))
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        dit, encoder = DiT(sizes.dit), AudioEncoder(sizes.audio_encoder)
    for network in (dit, encoder):
        network.to(dtype).to_empty(device="cpu").reset_parameters(generator)
    return check_agreement(Networks(spec, dit.eval(), _random_vae(sizes.vae, generator, dtype), encoder.eval()))


def _random_vae(
    config: LtxVaeConfig | WanVaeConfig | NanoVAEConfig, generator: torch.Generator, dtype: torch.dtype
) -> Vae:
    if isinstance(config, LtxVaeConfig | WanVaeConfig):
        with torch.device("meta"):
            vae: LtxVae | WanVae = LtxVae(config) if isinstance(config, LtxVaeConfig) else WanVae(config)
        vae.to(dtype).to_empty(device="cpu").reset_parameters(generator)
        return vae.eval()
    from .nano_vae import NanoVAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return NanoVAE(config).to(dtype).eval()
