"""How latents travel from chunk to chunk, the "static-dynamic" hand-over.

A `Carry` belongs to one session. During a chunk it overwrites the first latents at every level; a finished chunk
becomes the next chunk's past.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .spec import ModelSpec

Latents = NDArray[np.float32]


class Carry(Protocol):
    """Overwrites a chunk's first latents, level by level."""

    def begin(self, noise: Latents) -> None:
        """A chunk starts from `noise` [C, k, h, w]."""

    def place(self, level: int, latents: Latents) -> None:
        """Overwrite the first of `latents` [C, k, h, w] at denoise level `level`, in place."""


class NoisyCarry:
    """Hands over the previous chunk's intermediate latents at the same noise level (RAP, static-dynamic inference).

    The first chunk is given the static latent of the portrait, noised to each level. No picture is re-encoded.
    """

    def __init__(self, spec: ModelSpec, static: Latents) -> None:
        """Start from the portrait's static latent, [C, 1, h, w]."""
        self._count = spec.carried_latents
        self._schedule = spec.schedule()
        self._static: Latents | None = static
        shape = (spec.latent_channels, spec.carried_latents, spec.latent_size, spec.latent_size)
        self._past = np.zeros((len(self._schedule), *shape), np.float32)
        self._noise = np.zeros_like(static)

    def begin(self, noise: Latents) -> None:
        """Keep the noise that the static latent is mixed with on the first chunk."""
        self._noise[...] = noise[:, :1]

    def place(self, level: int, latents: Latents) -> None:
        """Overwrite the first latents by the past at `level`, and remember the last ones for the next chunk."""
        if self._static is not None:
            t = np.float32(self._schedule[level] / 1000.0)
            latents[:, :1] = (1 - t) * self._static + t * self._noise
        else:
            latents[:, : self._count] = self._past[level]
        self._past[level] = latents[:, -self._count :]
        if level == len(self._schedule) - 1:
            self._static = None


class CleanCarry:
    """Hands over clean latents, re-encoded from the last decoded frames (FlashHead)."""

    def __init__(self, static: Latents) -> None:
        """Start from the portrait's static latent, [C, 1, h, w]."""
        self._latents = static.copy()

    def begin(self, noise: Latents) -> None:
        """Nothing to keep: clean latents replace every level alike."""

    def place(self, level: int, latents: Latents) -> None:
        """Overwrite the first latents by the clean ones, whatever the level."""
        latents[:, : self._latents.shape[1]] = self._latents

    def advance(self, latents: Latents) -> None:
        """Take [C, n, h, w], the encoding of the chunk's last frames, as the past of the next chunk."""
        self._latents = latents.copy()
