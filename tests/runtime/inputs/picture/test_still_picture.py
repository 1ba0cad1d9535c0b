"""What of a picture file its decoder sees."""

import struct
import zlib

import numpy as np
import pytest
from helpers.media.pictures import animate, face, jpeg_of_scans, png_chunk, png_with

from rap_edge.runtime.errors import PortraitError
from rap_edge.runtime.inputs.picture.header import png_chunks, read_picture_header
from rap_edge.runtime.inputs.picture.portrait import load_portrait
from rap_edge.runtime.inputs.picture.still_picture import MOST_JPEG_SCANS, still_picture

SIZE = 64
PIXELS = face(SIZE, SIZE)


def still(data: bytes) -> bytes:
    header = read_picture_header(data)
    assert header is not None
    return still_picture("The picture", data, header)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP", b"tEXt", b"fdAT"])
def test_what_a_png_would_unpack_beside_its_pixels_is_not_handed_to_the_decoder(kind: bytes) -> None:
    bomb = png_with(PIXELS, kind, 1 << 20)
    assert {found for found, _, _ in png_chunks(still(bomb))} == {b"IHDR", b"IDAT", b"IEND"}
    assert np.array_equal(load_portrait(bomb, SIZE), PIXELS)


def test_pixels_that_unpack_to_far_more_than_a_picture_are_refused() -> None:
    packer = zlib.compressobj(9)
    much = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(8)), packer.flush()])
    header = struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", much) + png_chunk(b"IEND", b"")
    with pytest.raises(PortraitError, match="unpacks to far more than its pixels"):
        load_portrait(b"\x89PNG\r\n\x1a\n" + body, SIZE)


def test_a_jpeg_of_very_many_scans_is_refused_and_one_of_several_is_not() -> None:
    assert still(jpeg_of_scans(PIXELS, 10)) == jpeg_of_scans(PIXELS, 10)
    still(jpeg_of_scans(PIXELS, MOST_JPEG_SCANS))
    with pytest.raises(PortraitError, match="more than 100 scans; save the picture again"):
        load_portrait(jpeg_of_scans(PIXELS, MOST_JPEG_SCANS + 1), SIZE)


def test_scans_of_a_thumbnail_or_behind_the_picture_do_not_count() -> None:
    plain = jpeg_of_scans(PIXELS, 1)
    thumbnail = b"\xff\xda\0\0" * 200
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert still(plain[:2] + segment + plain[2:]) == plain[:2] + segment + plain[2:]
    assert still(plain + jpeg_of_scans(PIXELS, MOST_JPEG_SCANS + 1)) == plain


def test_an_animated_webp_becomes_a_still_one_of_its_first_frame() -> None:
    animation = animate([PIXELS, 255 - PIXELS], "webp", "libwebp_anim", "bgra", lossless="1")
    assert b"ANMF" in animation
    header = read_picture_header(still(animation))
    assert header is not None
    assert (header.width, header.height) == (SIZE, SIZE)
    assert b"ANMF" not in still(animation)


def test_a_gif_ends_behind_its_first_picture() -> None:
    animation = animate([PIXELS, 255 - PIXELS], "gif", "gif", "rgb8")
    assert len(still(animation)) < len(animation)
    assert still(still(animation)) == still(animation)


@pytest.mark.parametrize("data", [b"GIF89a" + bytes(20), b"GIF89a\1\0\1\0\0\0\0\x2c" + bytes(9) + b"\2\xff\0"])
def test_a_gif_without_a_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(PortraitError, match=r"damaged or cut off|no picture"):
        load_portrait(data, SIZE)
