"""Counter-based Gaussian noise: a pure function of (seed, chunk, draw), the same on every device.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and Box-Muller.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(counter: tuple[NDArray[np.uint64], ...], key: tuple[int, int]) -> tuple[NDArray[np.uint64], ...]:
    """Philox4x32-10.

    Args:
        counter: four arrays of 32-bit words held in uint64, broadcastable to one shape.
        key: two 32-bit words.

    Returns:
        Four arrays of uniformly distributed 32-bit words held in uint64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _32) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _32) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def normal(shape: tuple[int, ...], seed: int, chunk: int, draw: int) -> NDArray[np.float32]:
    """Standard normal numbers.

    Args:
        shape: shape of the result.
        seed: the session's seed, taken modulo 2**64.
        chunk: index of the chunk, 0 or more.
        draw: which of the chunk's noise tensors: 0 is the initial noise, 1.. the fresh noise of each step.

    Returns:
        float32 array of `shape`; word i of Philox counter (i // 4, draw, chunk) gives element i.
    """
    size = math.prod(shape)
    index = np.arange(-(-size // 4), dtype=np.uint64)
    one = np.ones_like(index)
    words = philox(
        (index, one * np.uint64(draw), one * np.uint64(chunk & 0xFFFFFFFF), one * np.uint64(chunk >> 32)),
        (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF),
    )
    # Half a step keeps the logarithm's argument off zero.
    uniform = [(word.astype(np.float64) + 0.5) * 2.0**-32 for word in words]
    pairs = []
    for radius, angle in ((uniform[0], uniform[1]), (uniform[2], uniform[3])):
        length = np.sqrt(-2.0 * np.log(radius))
        pairs += [length * np.cos(2.0 * np.pi * angle), length * np.sin(2.0 * np.pi * angle)]
    return np.stack(pairs, axis=-1).reshape(-1)[:size].reshape(shape).astype(np.float32)
