"""Pictures as PNG files, without loss.

PyAV (FFmpeg's libavcodec) is imported when a picture is encoded, not before.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, 3] RGB as a PNG file."""
    import av

    context = av.CodecContext.create("png", "w")
    context.height, context.width = picture.shape[:2]
    # FFmpeg wants a time of every frame; a picture has none.
    context.pix_fmt, context.time_base = "rgb24", Fraction(1, 25)
    packets = [*context.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
