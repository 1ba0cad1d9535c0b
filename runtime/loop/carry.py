"""How latents travel from chunk to chunk, the "static-dynamic" hand-over.

A `Carry` belongs to one session. During a chunk it overwrites the first latents at every level; a finished chunk
becomes the next chunk's past, an immutable value that a `LoopState` keeps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Latents = NDArray[np.float32]


@dataclass(frozen=True)
class Path:
    """The last latents of a chunk at every level of its denoising.

    Attributes:
        levels: shifted timesteps, falling to 0.
        latents: float32 [levels, C, n, h, w]; not written to any more.
    """

    levels: tuple[float, ...]
    latents: Latents

    def place(self, t: float) -> tuple[int, float]:
        """Where level `t` lies: an entry, and the share of the way from it to the next one, 0 where it is the entry."""
        rising = bisect_left([-level for level in self.levels], -t)
        if rising < len(self.levels) and self.levels[rising] == t:
            return rising, 0.0
        upper = min(max(rising - 1, 0), len(self.levels) - 2)
        high, low = self.levels[upper], self.levels[upper + 1]
        return upper, (high - t) / (high - low)

    def at(self, t: float) -> Latents:
        """The latents [C, n, h, w] at level `t`, exact for any `t`: Euler's path is straight between two levels."""
        upper, share = self.place(t)
        here: Latents = self.latents[upper]
        return here if share == 0.0 else here + np.float32(share) * (self.latents[upper + 1] - here)


@dataclass(frozen=True)
class Sound:
    """What a causal model has heard so far; not written to any more.

    Attributes:
        state: of the audio encoder, float32 [1, numbers].
        features: of the last frames, float32 [2 * look ahead, layers, width].
    """

    state: Latents
    features: Latents


@dataclass(frozen=True)
class Cached:
    """What the networks of a causal model keep of their past; not written to any more.

    Attributes:
        caches: by name, what the next latent's runs are given.
        sound: None where what was heard is not what comes before the next chunk; it is then heard again.
    """

    caches: Mapping[str, NDArray[np.floating]]
    sound: Sound | None


Past = Path | Latents | Cached
"""What a finished chunk leaves to the next one: noisy latents per level, clean ones [C, n, h, w], or caches."""


@dataclass(frozen=True)
class LoopState:
    """Where a session's loop stands between two chunks: all that the next one depends on besides its sound.

    Attributes:
        index: of the next chunk; with the seed it gives the chunk's noise.
        past: what the next chunk begins with, None for the portrait.
    """

    index: int = 0
    past: Past | None = None

    def after(self, past: Past | None) -> LoopState:
        """The state behind one more chunk, which leaves `past`."""
        return LoopState(self.index + 1, past)

    def passed(self, past: Past | None) -> LoopState:
        """The state behind one more chunk that is not rendered, so that its sound is not heard either."""
        return self.after(past).elsewhere()

    def elsewhere(self) -> LoopState:
        """The same state before other sound than that which followed when it was left."""
        past = replace(self.past, sound=None) if isinstance(self.past, Cached) else self.past
        return replace(self, past=past)


class Carry(Protocol):
    """Overwrites a chunk's first latents, level by level.

    Attributes:
        past: what the chunk begins with, None before the first one; when the chunk is done, what it leaves.
    """

    past: Past | None

    def begin(self, schedule: tuple[float, ...], noise: Latents) -> None:
        """A chunk starts from `noise` [C, k, h, w] and will be shown every level of `schedule`."""

    def place(self, level: int, latents: Latents) -> None:
        """Overwrite the first of `latents` [C, k, h, w] at the schedule's entry `level`, in place."""


class NoisyCarry:
    """Hands over the previous chunk's intermediate latents at the same noise level (RAP, static-dynamic inference).

    The first chunk is given the static latent of the portrait, noised to each level. No picture is re-encoded. The
    number of steps may change from chunk to chunk.
    """

    def __init__(self, carried_latents: int, static: Latents) -> None:
        """Carry n latents; start from the portrait's static latent, [C, 1, h, w]."""
        self.past: Past | None = None
        self._count, self._static = carried_latents, static
        self._schedule: tuple[float, ...] = ()
        self._noise = self._path = static

    def begin(self, schedule: tuple[float, ...], noise: Latents) -> None:
        """Keep the noise that the static latent is mixed with on the first chunk."""
        self._schedule, self._noise = schedule, noise[:, :1].copy()
        shape = (len(schedule), noise.shape[0], self._count, *noise.shape[2:])
        self._path = np.empty(shape, np.float32)

    def place(self, level: int, latents: Latents) -> None:
        """Overwrite the first latents by the past at `level`, and remember the last ones for the next chunk."""
        t = self._schedule[level]
        if isinstance(self.past, Path):
            latents[:, : self._count] = self.past.at(t)
        else:
            share = np.float32(t / 1000.0)
            latents[:, :1] = (1 - share) * self._static + share * self._noise
        self._path[level] = latents[:, -self._count :]
        if level == len(self._schedule) - 1:
            self.past = Path(self._schedule, self._path)


class NoCarry:
    """Overwrites nothing: what a latent follows on is in the caches of the networks."""

    past: Past | None = None

    def begin(self, schedule: tuple[float, ...], noise: Latents) -> None:
        """Nothing to keep."""

    def place(self, level: int, latents: Latents) -> None:
        """Nothing to overwrite."""


class CleanCarry:
    """Hands over clean latents, re-encoded from the last decoded frames (FlashHead)."""

    def __init__(self, static: Latents) -> None:
        """Start from the portrait's static latent, [C, 1, h, w]."""
        self.past: Past | None = None
        self._static = static.copy()

    def begin(self, schedule: tuple[float, ...], noise: Latents) -> None:
        """Nothing to keep: clean latents replace every level alike."""

    def place(self, level: int, latents: Latents) -> None:
        """Overwrite the first latents by the clean ones, whatever the level."""
        clean = self.past if isinstance(self.past, np.ndarray) else self._static
        latents[:, : clean.shape[1]] = clean

    def advance(self, latents: Latents) -> None:
        """Take [C, n, h, w], the encoding of the chunk's last frames, as the past of the next chunk."""
        self.past = latents.copy()
