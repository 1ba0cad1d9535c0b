"""A portrait of the user's, a bundle's or a visitor's, of every kind that is read."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
from helpers.fuzz_targets.mutations import byte_mutants
from helpers.fuzz_targets.target import Target
from helpers.media.pictures import animate, encode, face, tiff
from hypothesis import strategies as st

from rap_edge.runtime.inputs.picture.portrait import PortraitWarning, load_portrait

_SIZE = 32
_KINDS = 10


@cache
def _good_files() -> list[bytes]:
    picture = face(_SIZE, _SIZE)
    other = 255 - picture
    return [
        encode(picture, "png", "rgb24"),
        encode(picture, "png", "rgba64be"),
        encode(picture, "mjpeg", "yuvj420p"),
        encode(picture, "bmp", "bgr24"),
        encode(picture, "libwebp", "yuv420p"),
        encode(picture, "libwebp", "bgra", lossless="1"),
        encode(picture, "tiff", "rgb24", compression_algo="lzw"),
        tiff(picture, ">", t274=6),
        animate([picture, other], "gif", "gif", "rgb8"),
        animate([picture, other], "webp", "libwebp_anim", "yuv420p"),
    ]


def _read(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PortraitWarning)
        picture = load_portrait(content, _SIZE, most_pixels=1 << 20)
    assert picture.shape == (_SIZE, _SIZE, 3)
    assert picture.dtype == np.uint8


PICTURE = Target(
    "picture",
    st.integers(0, _KINDS - 1).flatmap(lambda kind: byte_mutants(_good_files()[kind])) | st.binary(max_size=200),
    _read,
)
