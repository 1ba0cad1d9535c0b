"""What every autoencoder between frames and latents is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Vae(Protocol):
    """What the exporter asks of every VAE module."""

    def encode(self, frames: Tensor) -> Tensor:
        """[B, 3, T, H, W] in -1..1 -> normalised latents [B, C, k, h, w], the mode of the posterior."""

    def decode(self, latents: Tensor, last: int | None = None) -> Tensor:
        """Normalised latents [B, C, k, h, w] -> the last frames [B, 3, last, H, W], about -1..1 and not clamped.

        None gives every frame. A network may leave out the work that only earlier frames need.
        """
