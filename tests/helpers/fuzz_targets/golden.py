"""The golden frames of a bundle: an npz file, whole, or packed again from changed arrays."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from helpers.bundles.tiny import TINY
from helpers.fuzz_targets.mutations import byte_mutants
from helpers.fuzz_targets.target import Target
from hypothesis import strategies as st

from rap_edge.runtime.bundle.golden import read_frames


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _packed(frames: bytes, indices: bytes, method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("frames.npy", frames)
        archive.writestr("indices.npy", indices)
    return stream.getvalue()


_FRAMES = _npy(np.zeros((2, *TINY.image_size, 3), np.uint8))
_INDICES = _npy(np.arange(2))
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

GOLDEN = Target(
    "golden frames",
    st.sampled_from(_METHODS).flatmap(lambda method: byte_mutants(_packed(_FRAMES, _INDICES, method)))
    | st.builds(_packed, byte_mutants(_FRAMES, head=128), byte_mutants(_INDICES, head=144), st.sampled_from(_METHODS)),
    lambda content: read_frames(content, TINY),
)
