"""Picture files for tests, encoded by PyAV or put together by hand."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np


def face(height: int = 128, width: int = 128) -> np.ndarray:
    """A smooth picture whose four corners all differ, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 40 + 160 * x / width, 60 + 140 * y / height
    return np.stack([red, green, np.full_like(red, 90)], axis=2).astype(np.uint8)


def encode(pixels: np.ndarray, codec: str, pixel_format: str, source: str = "rgb24", **options: str) -> bytes:
    """One picture in the codec's own file format."""
    context = av.CodecContext.create(codec, "w")
    frame = av.VideoFrame.from_ndarray(pixels, format=source).reformat(format=pixel_format)
    context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
    context.time_base = Fraction(1, 25)
    context.options = options
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def animate(pictures: list[np.ndarray], container: str, codec: str, pixel_format: str, **options: str) -> bytes:
    """An animation of several pictures of one size."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)))
        output.mux(stream.encode(None))
    return file.getvalue()


def jpeg_of_scans(pixels: np.ndarray, scans: int) -> bytes:
    """A JPEG whose only scan comes as often as asked."""
    data = encode(pixels, "mjpeg", "yuvj420p", qmin="2", qmax="2")
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * scans + b"\xff\xd9"


def png_with(pixels: np.ndarray, kind: bytes, unpacked: int) -> bytes:
    """A PNG with a chunk that holds so many compressed zeros."""
    data, packer = encode(pixels, "png", "rgb24"), zlib.compressobj(9)
    step = 1 << 20
    zeros = b"".join([*(packer.compress(bytes(step)) for _ in range(unpacked // step)), packer.flush()])
    return data[:33] + png_chunk(kind, b"a\0\0" + zeros) + data[33:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(pixels: np.ndarray, order: str = "<", **tags: int) -> bytes:
    """An uncompressed TIFF of [height, width, 3]; tags by number, such as t274=6."""
    height, width, _ = pixels.shape
    entries = {256: width, 257: height, 259: 1, 262: 2, 277: 3, 278: height, 279: pixels.size}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    # Behind the directory: bits per sample, then the pixels.
    behind = 8 + 2 + 12 * (len(entries) + 2) + 4
    rows = [(tag, 4, 1, struct.pack(order + "I", value)) for tag, value in entries.items()]
    rows += [(258, 3, 3, struct.pack(order + "I", behind)), (273, 4, 1, struct.pack(order + "I", behind + 6))]
    directory = b"".join(struct.pack(order + "HHI", *row[:3]) + row[3] for row in sorted(rows))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(rows))
    return start + directory + bytes(4) + struct.pack(order + "HHH", 8, 8, 8) + pixels.tobytes()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


UPRIGHT = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.rot90(np.fliplr(p)),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(np.fliplr(p), -1),
    8: np.rot90,
}
