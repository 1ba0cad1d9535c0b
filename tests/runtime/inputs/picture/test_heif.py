"""HEIC and AVIF: read where the extra is installed, refused by name where it is not."""

import io
import struct
import sys

import numpy as np
import pytest
from helpers.media.pictures import UPRIGHT, difference, face

from rap_edge.runtime.errors import PortraitError
from rap_edge.runtime.inputs.picture.heif import decode_heif, is_heif
from rap_edge.runtime.inputs.picture.portrait import load_portrait

SIZE = 64


def encode_heif(pixels: np.ndarray, form: str, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'rap-edge[heic]'")
    from PIL import Image

    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, quality=95, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_telephones_picture_is_shown_upright(form: str, orientation: int) -> None:
    stored = face(SIZE, SIZE)
    data = encode_heif(stored, form, exif=exif(orientation))
    assert (b"irot" in data or b"imir" in data) == (orientation > 1), "the container turns it, not the Exif data alone"
    assert difference(load_portrait(data, SIZE), UPRIGHT[orientation](stored)) < 2.0


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_transparency_shows_neutral_grey(form: str) -> None:
    rgba = np.dstack([face(SIZE, SIZE), np.full((SIZE, SIZE), 255, np.uint8)])
    rgba[:32, :, 3] = 0
    out = load_portrait(encode_heif(rgba, form), SIZE)
    assert np.abs(out[:28].astype(int) - 128).max() <= 2
    assert difference(out[36:], rgba[36:, :, :3]) < 2.0


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_a_damaged_or_too_large_one_is_refused(form: str) -> None:
    data = encode_heif(face(SIZE, SIZE), form)
    with pytest.raises(PortraitError, match="64 x 64 pixels, more than 0 million"):
        decode_heif("The picture", data, 64 * 64 - 1)
    for kept in (0.3, 0.6, 0.9):
        with pytest.raises(PortraitError, match="damaged or cut off"):
            load_portrait(data[: int(len(data) * kept)], SIZE)


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(PortraitError, match=r"HEIC or AVIF picture; .*pip install 'rap-edge\[heic\]'"):
        load_portrait(data, SIZE)


def test_a_film_is_no_picture() -> None:
    film = struct.pack(">I", 24) + b"ftypisom\0\0\2\0mp42isom" + b"heic" + bytes(100)
    assert not is_heif(film)
    assert is_heif(struct.pack(">I", 28) + b"ftypmif1\0\0\0\0mif1avifmiaf")
    assert not is_heif(b"")
    assert not is_heif(b"\0\0\0\x18ftyp")
