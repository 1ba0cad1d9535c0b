import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.media.pictures import UPRIGHT, animate, difference, encode, face, png_chunk, tiff

from rap_edge.runtime.errors import PortraitError
from rap_edge.runtime.inputs.picture.portrait import PortraitWarning, load_portrait

SIZE = 64


def save(path: Path, pixels: np.ndarray, codec: str, pixel_format: str, source: str = "rgb24", **options: str) -> Path:
    path.write_bytes(encode(pixels, codec, pixel_format, source, **options))
    return path


def with_orientation(jpeg: Path, orientation: int) -> Path:
    """Insert an Exif segment behind the start marker."""
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    body = b"Exif\0\0" + tiff
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    return jpeg


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options", "tolerance"),
    [
        ("a.png", "png", "rgb24", {}, 0.0),
        ("a.png", "png", "rgb48be", {}, 0.6),
        ("a.bmp", "bmp", "bgr24", {}, 0.0),
        ("a.jpg", "mjpeg", "yuvj444p", {"qmin": "1", "qmax": "1"}, 1.0),
        ("a.jpg", "mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}, 1.0),
        ("a.webp", "libwebp", "yuv420p", {"quality": "100"}, 2.0),
        ("a.webp", "libwebp", "bgra", {"lossless": "1"}, 0.0),
        ("a.tif", "tiff", "rgb24", {"compression_algo": "raw"}, 0.0),
        ("a.tif", "tiff", "rgb24", {"compression_algo": "lzw"}, 0.0),
        ("a.tif", "tiff", "rgb48le", {"compression_algo": "deflate"}, 0.6),
        # 8 bits per pixel.
        ("a.gif", "gif", "rgb8", {}, 12.0),
    ],
)
def test_common_formats_show_the_same_picture(
    tmp_path: Path, name: str, codec: str, pixel_format: str, options: dict[str, str], tolerance: float
) -> None:
    pixels = face(SIZE, SIZE)
    out = load_portrait(save(tmp_path / name, pixels, codec, pixel_format, **options), SIZE)
    assert out.dtype == np.uint8
    assert out.shape == (SIZE, SIZE, 3)
    assert difference(out, pixels) <= tolerance


@pytest.mark.parametrize("pixel_format", ["gray", "gray16be", "ya8"])
def test_a_grey_picture_stays_grey(tmp_path: Path, pixel_format: str) -> None:
    grey = face(SIZE, SIZE)[..., 0]
    out = load_portrait(save(tmp_path / "a.png", grey, "png", pixel_format, source="gray"), SIZE)
    assert np.ptp(out, axis=2).max() == 0
    assert difference(out[..., 0], grey) < 0.6


@pytest.mark.parametrize(("codec", "pixel_format"), [("png", "rgba"), ("png", "rgba64be"), ("libwebp", "bgra")])
def test_transparency_shows_neutral_grey(tmp_path: Path, codec: str, pixel_format: str) -> None:
    rgba = np.dstack([face(SIZE, SIZE), np.full((SIZE, SIZE), 255, np.uint8)])
    rgba[: SIZE // 2, :, 3], rgba[:8, :, 3] = 128, 0
    path = save(
        tmp_path / "a", rgba, codec, pixel_format, source="rgba", **({"lossless": "1"} if "webp" in codec else {})
    )
    out = load_portrait(path, SIZE)
    assert np.array_equal(np.unique(out[:8]), [128])
    half = rgba[8 : SIZE // 2, :, :3] * (128 / 255) + 128 * (127 / 255)
    assert difference(out[8 : SIZE // 2], half) < 0.8
    assert difference(out[SIZE // 2 :], rgba[SIZE // 2 :, :, :3]) < 0.6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    stored = face(SIZE, SIZE)
    path = save(tmp_path / "a.jpg", stored, "mjpeg", "yuvj444p", qmin="1", qmax="1")
    out = load_portrait(with_orientation(path, orientation), SIZE)
    assert difference(out, UPRIGHT[orientation](stored)) < 1.0


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    path = save(tmp_path / "a.jpg", face(SIZE, SIZE), "mjpeg", "yuvj444p", qmin="1", qmax="1")
    assert difference(load_portrait(with_orientation(path, orientation), SIZE), face(SIZE, SIZE)) < 1.0


def test_a_turned_png_is_turned_upright(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", face(SIZE, SIZE), "png", "rgb24")
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    data = path.read_bytes()
    path.write_bytes(data[:33] + png_chunk(b"eXIf", exif) + data[33:])
    assert np.array_equal(load_portrait(path, SIZE), np.rot90(face(SIZE, SIZE), -1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_upright(order: str, orientation: int) -> None:
    stored = face(SIZE, SIZE)
    assert np.array_equal(load_portrait(tiff(stored, order, t274=orientation), SIZE), UPRIGHT[orientation](stored))


@pytest.mark.parametrize(("tag", "what"), [({"t259": 7}, "compression of kind 7"), ({"t262": 6}, "colour of kind 6")])
def test_a_tiff_that_would_come_out_wrong_is_refused(tag: dict[str, int], what: str) -> None:
    with pytest.raises(PortraitError, match=f"TIFF picture with {what}, which is not read; save it as PNG or JPEG"):
        load_portrait(tiff(face(SIZE, SIZE), **tag), SIZE)


@pytest.mark.parametrize(
    ("container", "codec", "pixel_format", "options", "tolerance"),
    [
        ("gif", "gif", "rgb8", {}, 12.0),
        ("apng", "apng", "rgb24", {}, 0.0),
        ("webp", "libwebp_anim", "yuv420p", {"quality": "100"}, 2.0),
        ("webp", "libwebp_anim", "bgra", {"lossless": "1"}, 0.0),
    ],
)
def test_an_animation_shows_its_first_picture(
    container: str, codec: str, pixel_format: str, options: dict[str, str], tolerance: float
) -> None:
    first = face(SIZE, SIZE)
    animation = animate([first, 255 - first, first // 2], container, codec, pixel_format, **options)
    assert difference(load_portrait(animation, SIZE), first) <= tolerance
    with pytest.raises(PortraitError, match="damaged or cut off"):
        load_portrait(animation[: len(animation) // 6], SIZE)


@pytest.mark.parametrize(("height", "width"), [(SIZE, 96), (96, SIZE)])
def test_the_centre_square_is_kept(height: int, width: int) -> None:
    pixels = face(height, width)
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    assert np.array_equal(load_portrait(pixels, SIZE), pixels[top : top + SIZE, left : left + SIZE])


def test_a_large_picture_is_reduced_without_aliasing_or_shift() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(load_portrait(stripes, SIZE)[4:-4, 4:-4].astype(int) - 128).max() <= 3
    smooth = face(512, 512)
    expected = smooth.reshape(SIZE, 8, SIZE, 8, 3).mean((1, 3))
    assert np.abs(load_portrait(smooth, SIZE)[4:-4, 4:-4] - expected[4:-4, 4:-4]).max() < 1.5


@pytest.mark.parametrize("side", [200, 512])
def test_bilinear_is_that_of_pillow(side: int) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = face(side, side)
    pixels[::7, ::5] = 255
    expected = np.asarray(image.fromarray(pixels).resize((SIZE, SIZE), image.Resampling.BILINEAR)).astype(int)
    assert np.abs(load_portrait(pixels, SIZE, resizing="bilinear") - expected).max() <= 2
    assert np.abs(load_portrait(pixels, SIZE) - expected).max() > 2


def test_a_small_picture_is_enlarged_with_a_warning() -> None:
    with pytest.warns(PortraitWarning, match="32 usable pixels"):
        out = load_portrait(face(32, 40), SIZE)
    assert out.shape == (SIZE, SIZE, 3)


def test_a_large_enough_picture_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_portrait(face(), SIZE)


def test_the_callers_array_is_neither_kept_nor_changed() -> None:
    pixels = face(SIZE, SIZE)
    load_portrait(pixels, SIZE)[...] = 0
    assert np.array_equal(pixels, face(SIZE, SIZE))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["grey", "rgba", "float", "empty"],
)
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PortraitError, match="instead of"):
        load_portrait(array, SIZE)


def refused(path: Path, match: str) -> None:
    with pytest.raises(PortraitError, match=match) as caught:
        load_portrait(path, SIZE)
    assert "\n" not in str(caught.value)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    text, empty = tmp_path / "face.txt", tmp_path / "face.png"
    text.write_text("not a face\n" * 100)
    empty.touch()
    refused(text, "no picture")
    refused(empty, "no picture")
    refused(tmp_path, "not a file")
    refused(tmp_path / "missing.png", "does not exist")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tif"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_a_truncated_picture_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    codec, pixel_format = {
        "a.png": ("png", "rgb24"),
        "a.jpg": ("mjpeg", "yuvj420p"),
        "a.bmp": ("bmp", "bgr24"),
        "a.webp": ("libwebp", "bgra"),
        "a.gif": ("gif", "rgb8"),
        "a.tif": ("tiff", "rgb24"),
    }[name]
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    path = save(tmp_path / name, noise, codec, pixel_format)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path, "damaged or cut off|no picture")


def test_a_picture_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    side = 40_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    refused(path, "40000 x 40000 pixels")


def test_a_picture_whose_name_is_as_long_as_names_can_be_is_read(tmp_path: Path) -> None:
    for letter in ("a", "é", "𝄞"):
        name = letter * (251 // len(letter.encode())) + ".png"
        assert load_portrait(save(tmp_path / name, face(SIZE, SIZE), "png", "rgb24"), SIZE).shape == (SIZE, SIZE, 3)


def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.webp", face(), "libwebp", "bgra", lossless="1")
    data = path.read_bytes()
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (15).to_bytes(3, "little") * 2
    path.write_bytes(data[:12] + extended + data[12:])
    refused(path, "damaged")
