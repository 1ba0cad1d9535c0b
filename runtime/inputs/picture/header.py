"""What a picture file says about itself before any pixel is decoded: format, size and orientation.

Read from PNG (ISO 15948), JPEG (ISO 10918-1, Exif 2.32), WebP (RFC 9649), GIF (89a), TIFF (6.0) and BMP headers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import PortraitError

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
TIFF_COMPRESSION, TIFF_PHOTOMETRIC = 0x0103, 0x0106
_TIFF_WIDTH, _TIFF_HEIGHT, _ORIENTATION = 0x0100, 0x0101, 0x0112
_TIFF_SHORT, _TIFF_LONG = 3, 4
# Far more parts than any camera or editor writes; walking through them takes a fraction of a second.
_MOST_PARTS = 100_000
# Start-of-frame markers carry the size; C4, C8 and CC share their range and are something else.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xDA)))
# Inside a scan FF 00 is a byte and FF D0 to FF D7 are restarts; any other marker ends it.
_JPEG_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


@dataclass(frozen=True)
class PictureHeader:
    """Format ("png", "jpeg", "webp", "gif", "tiff" or "bmp"), stored size in pixels, and EXIF orientation 1..8.

    Of an animated WebP the size is that of its first frame.
    """

    format: str
    width: int
    height: int
    orientation: int = 1


def require_pixels(name: str, width: int, height: int, most: int) -> None:
    """Refuse a picture of more than `most` pixels; `name` is told in the `PortraitError`."""
    if width * height > most:
        raise PortraitError(f"{name} has {width} x {height} pixels, more than {most // 10**6} million; scale it down.")


def read_picture_header(data: bytes) -> PictureHeader | None:
    """The header of a picture file, or None if it is of no known format or its header is damaged."""
    try:
        if data.startswith(PNG_START):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return PictureHeader("gif", *struct.unpack_from("<HH", data, 6))
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff(data)
        if data.startswith(b"BM"):
            return _bmp(data)
    except (struct.error, IndexError):
        return None
    return None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of the bodies of a PNG's chunks; four bytes of checksum follow each."""
    position = 8
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, size
        position += size + 12


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of the bodies of a JPEG's segments, as far as the end of its picture."""
    position = 2
    for _ in range(_MOST_PARTS):
        if position + 2 > len(data) or data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF or marker in _JPEG_BARE:
            position += 1 if marker == 0xFF else 2
            if marker == JPEG_END:
                yield marker, position, 0
            continue
        if position + 4 > len(data):
            return
        (size,) = struct.unpack_from(">H", data, position + 2)
        yield marker, position + 4, size - 2
        position += 2 + size
        if marker == JPEG_SCAN:
            end = _JPEG_SCAN_END.search(data, position)
            position = len(data) if end is None else end.start()


def webp_chunks(data: bytes, position: int = 12) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of the chunks of a WebP, or of one of its frames."""
    for _ in range(_MOST_PARTS):
        if position + 8 > len(data):
            return
        kind, size = struct.unpack_from("<4sI", data, position)
        yield kind, data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def tiff_tags(tiff: bytes) -> Mapping[int, int]:
    """The numbers in the first directory of a TIFF or of Exif data, by tag."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return {}
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    if directory + 2 > len(tiff):
        return {}
    (count,) = struct.unpack_from(order + "H", tiff, directory)
    tags: dict[int, int] = {}
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, length = struct.unpack_from(order + "HHI", tiff, entry)
        if length == 1 and kind in (_TIFF_SHORT, _TIFF_LONG):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == _TIFF_SHORT else "I"), tiff, entry + 8)
    return tags


def _png(data: bytes) -> PictureHeader | None:
    if data[12:16] != b"IHDR":
        return None
    # With the depth and the kind of colour, so that there is all that the size of a row is told from.
    width, height, _, _ = struct.unpack_from(">IIBB", data, 16)
    orientation = 1
    for kind, start, size in png_chunks(data):
        if kind == b"eXIf":
            orientation = _exif_orientation(data[start : start + size])
    return PictureHeader("png", width, height, orientation)


def _jpeg(data: bytes) -> PictureHeader | None:
    orientation = 1
    for marker, start, size in jpeg_segments(data):
        body = data[start : start + size]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body[6:])
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", body, 1)
            return PictureHeader("jpeg", width, height, orientation)
    return None


def _webp(data: bytes) -> PictureHeader | None:
    size, frame, orientation = None, None, 1
    for kind, body in webp_chunks(data):
        if kind == b"VP8X":
            size = (int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1)
        elif kind == b"ANMF":
            frame = frame or webp_frame_size(body)
        elif kind == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", body, 6)
            size = (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L" and size is None:
            (bits,) = struct.unpack_from("<I", body, 1)
            size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"EXIF":
            orientation = _exif_orientation(body.removeprefix(b"Exif\0\0"))
    size = frame or size
    return None if size is None else PictureHeader("webp", *size, orientation)


def webp_frame_size(frame: bytes) -> tuple[int, int]:
    """Width and height of a frame of an animated WebP."""
    return int.from_bytes(frame[6:9], "little") + 1, int.from_bytes(frame[9:12], "little") + 1


def _tiff(data: bytes) -> PictureHeader | None:
    tags = tiff_tags(data)
    if _TIFF_WIDTH not in tags or _TIFF_HEIGHT not in tags:
        return None
    return PictureHeader("tiff", tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT], _exif_orientation(data))


def _bmp(data: bytes) -> PictureHeader:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return PictureHeader("bmp", abs(width), abs(height))


def _exif_orientation(tiff: bytes) -> int:
    value = tiff_tags(tiff).get(_ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1
