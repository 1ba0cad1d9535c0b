"""Sound as frameworks pass it, 16-bit and interleaved, and as an `AvatarStream` takes and gives it."""

from __future__ import annotations

import numpy as np

from rap_edge.runtime.errors import AudioError
from rap_edge.runtime.inputs.convert import Samples, scaled, to_int16, to_mono


def to_samples(pcm: bytes | bytearray | memoryview, channels: int) -> Samples:
    """Interleaved int16 as float32 [samples], the mean of its channels.

    Raises:
        AudioError: it is not whole samples of so many channels.
    """
    size = memoryview(pcm).nbytes
    if channels < 1 or size % (2 * channels):
        raise AudioError(f"{size} bytes are not whole 16-bit samples of {channels} channels; pass them in one piece.")
    return to_mono(scaled(np.frombuffer(pcm, np.int16)).reshape(-1, channels))


def to_bytes(samples: Samples) -> bytes:
    """float32 [samples] as 16-bit mono; the inverse of `to_samples`."""
    return to_int16(samples).tobytes()
