"""What of a picture file its decoder is given: one still picture that costs no more than its pixels.

In: a file that may come from anybody, and its header. Out: the same picture without what a decoder would unpack beside
it, or an error where the file asks for far more work than its pixels are worth.
"""

from __future__ import annotations

import struct
import zlib

from ...errors import PortraitError
from .header import (
    JPEG_END,
    JPEG_SCAN,
    PNG_START,
    TIFF_COMPRESSION,
    TIFF_PHOTOMETRIC,
    PictureHeader,
    jpeg_segments,
    png_chunks,
    tiff_tags,
    webp_chunks,
    webp_frame_size,
)

# Encoders write 1, or about 10 for a progressive picture.
MOST_JPEG_SCANS = 100
# Texts, colour profiles and the frames of an animation stay out: they are unpacked to any length.
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# A piece unpacks to a thousand times its length at most.
_PIECE = 16 << 10
_SLACK = 64 << 10
_WEBP_ALPHA = 0x10
_GIF_EXTENSION, _GIF_IMAGE = 0x21, 0x2C
_MOST_GIF_BLOCKS = 1 << 20
# None, LZW, PackBits and both numbers of Deflate; what FFmpeg makes of JPEG inside TIFF is black.
_TIFF_COMPRESSIONS = frozenset((1, 5, 8, 32773, 32946))
# Grey, RGB, palette and CMYK.
_TIFF_COLOURS = frozenset((0, 1, 2, 3, 5))


def still_picture(name: str, data: bytes, header: PictureHeader) -> bytes:
    """The file to decode instead of `data`, of the size that `header` states.

    Args:
        name: of the picture, for errors.
        data: the file.
        header: as `read_picture_header` read it.

    Raises:
        PortraitError: it would take far more work than its pixels need, or is damaged or of a kind that is not read.
    """
    if header.format == "png":
        return _png(name, data)
    if header.format == "jpeg":
        return _jpeg(name, data)
    if header.format == "webp":
        return _webp(name, data)
    if header.format == "gif":
        return _gif(name, data)
    if header.format == "tiff":
        _check_tiff(name, data)
    return data


def _png(name: str, data: bytes) -> bytes:
    kept = [(start, size) for kind, start, size in png_chunks(data) if kind in _PNG_KEPT]
    pixels = [data[start : start + size] for kind, start, size in png_chunks(data) if kind == b"IDAT"]
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    row = 1 + (width * depth * _PNG_CHANNELS.get(colour, 4) + 7) // 8
    # Interlaced rows are shorter and more, at most twice the bytes.
    if _unpacks_beyond(pixels, 2 * row * height + _SLACK):
        raise PortraitError(f"{name} unpacks to far more than its pixels; save the picture again.")
    # A chunk's length and kind are in front of its body, its checksum behind.
    return PNG_START + b"".join(data[start - 8 : start + size + 4] for start, size in kept)


def _unpacks_beyond(parts: list[bytes], most: int) -> bool:
    unpacker, length = zlib.decompressobj(), 0
    pieces = (part[at : at + _PIECE] for part in parts for at in range(0, len(part), _PIECE))
    try:
        for piece in pieces:
            length += len(unpacker.decompress(piece))
            if length > most or unpacker.eof:
                break
    except zlib.error:
        # Of damage the decoder says so itself.
        return False
    return length > most


def _jpeg(name: str, data: bytes) -> bytes:
    scans, end = 0, len(data)
    for marker, start, _ in jpeg_segments(data):
        scans += marker == JPEG_SCAN
        if scans > MOST_JPEG_SCANS:
            raise PortraitError(f"{name} has more than {MOST_JPEG_SCANS} scans; save the picture again.")
        if marker == JPEG_END and scans:
            end = start
            break
    return data[:end]


def _webp(name: str, data: bytes) -> bytes:
    # Some writers count a last byte of padding that is not there.
    if len(data) + 1 < 8 + struct.unpack_from("<I", data, 4)[0]:
        raise _damaged(name)
    frame = next((body for kind, body in webp_chunks(data) if kind == b"ANMF"), None)
    if frame is None:
        return data
    width, height = webp_frame_size(frame)
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = [(kind, body) for kind, body in webp_chunks(frame, 16) if kind in (b"ALPH", b"VP8 ", b"VP8L")]
    alpha = any(kind != b"VP8 " for kind, _ in parts)
    parts.insert(0, (b"VP8X", bytes((_WEBP_ALPHA * alpha, 0, 0, 0)) + sizes))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(name: str, data: bytes) -> bytes:
    try:
        position = 13 + _gif_table(data[10])
        while data[position] == _GIF_EXTENSION:
            position = _after_blocks(data, position + 2)
        if data[position] == _GIF_IMAGE:
            end = _after_blocks(data, position + 11 + _gif_table(data[position + 9]))
            return data[:end] + b";"
    except IndexError:
        pass
    raise _damaged(name)


def _damaged(name: str) -> PortraitError:
    return PortraitError(f"{name} is damaged or cut off; save the picture again.")


def _gif_table(flags: int) -> int:
    """Bytes of the table of colours that `flags` announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    for _ in range(_MOST_GIF_BLOCKS):
        size = data[position]
        position += 1 + size
        if size == 0:
            return position
    raise IndexError


def _check_tiff(name: str, data: bytes) -> None:
    tags = tiff_tags(data)
    for tag, known, what in (
        (TIFF_COMPRESSION, _TIFF_COMPRESSIONS, "compression"),
        (TIFF_PHOTOMETRIC, _TIFF_COLOURS, "colour"),
    ):
        if tags.get(tag, 1) not in known:
            raise PortraitError(
                f"{name} is a TIFF picture with {what} of kind {tags[tag]}, which is not read; save it as PNG or JPEG."
            )
