from helpers.media.pictures import png_chunk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rap_edge.runtime.inputs.picture.header import PictureHeader, read_picture_header

STARTS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00\x20Exif\0\0MM\0*", b"RIFF\0\0\0\0WEBP", b"BM"]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=200))
@example(b"\xff\xd8\xff", b"\xff" * 50)
@example(b"\xff\xd8\xff", b"\xc0\x00\x00" * 20)
@example(b"RIFF\0\0\0\0WEBP", b"VP8L" + b"\xff" * 8)
def test_any_bytes_give_a_header_or_nothing(start: bytes, rest: bytes) -> None:
    header = read_picture_header(start + rest)
    assert header is None or header.orientation in range(1, 9)


def test_other_files_have_no_header() -> None:
    assert read_picture_header(b"") is None
    assert read_picture_header(b"a diary entry") is None


def test_a_jpeg_header_is_found_behind_padding_and_other_segments() -> None:
    comment = b"\xff\xfe\x00\x06abcd"
    frame = b"\xff\xc2\x00\x11\x08\x01\x2c\x02\x58" + bytes(10)
    data = b"\xff\xd8" + comment + b"\xff" + frame
    assert read_picture_header(data) == PictureHeader("jpeg", 600, 300)


def test_a_bottom_up_bitmap_has_a_positive_height() -> None:
    sizes = b"".join(value.to_bytes(4, "little", signed=True) for value in (40, 30, -20))
    assert read_picture_header(b"BM" + bytes(12) + sizes + bytes(28)) == PictureHeader("bmp", 30, 20)


def test_a_png_whose_size_does_not_come_first_has_no_header() -> None:
    text = png_chunk(b"tEXt", (8).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    size = png_chunk(b"IHDR", (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    assert read_picture_header(b"\x89PNG\r\n\x1a\n" + text + size) is None
