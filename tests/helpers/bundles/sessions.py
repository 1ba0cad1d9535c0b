"""Sessions over the tiny model's engines in plain numpy."""

import numpy as np
from helpers.bundles.tiny import TINY, tiny_engines

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.session.chunk import Chunk
from rap_edge.runtime.session.session import Session


def portrait(spec=TINY) -> np.ndarray:
    ramp = np.linspace(40, 90, spec.width).astype(np.uint8)
    return np.broadcast_to(ramp[None, :, None], (*spec.image_size, 3)).copy()


def avatar(spec=TINY, **bodies) -> Avatar:
    return Avatar(spec, tiny_engines(spec, **bodies), portrait(spec), "fp32")


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.3 * rng.standard_normal(round(seconds * TINY.sample_rate))).clip(-1, 1).astype(np.float32)


def drain(session: Session) -> list[Chunk]:
    session.finish()
    return list(session.chunks())


def frames_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks])


def noisy_field(b) -> None:
    """A velocity that leaves part of the noise in the picture, so that the seed shows."""
    b["velocity"][...] = b["latents"] * 0.5


def mixing_field(b) -> None:
    """A velocity in which every latent sees the carried ones, so that the past shows in the new frames."""
    b["velocity"][...] = 0.5 * b["latents"] + 0.2 * b["latents"].mean(2, keepdims=True)
