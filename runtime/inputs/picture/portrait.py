"""The portrait: any common picture to uint8 [size, size, 3] RGB, upright, cropped to the centre square.

PyAV (FFmpeg's decoders and libswscale) is imported when there is something to decode or resize, not before.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import PortraitError
from ...spec import Crop, Framing, ModelSpec, Resizing, height_and_width
from .face import can_find_faces, find_face
from .framing import framed, stands_well
from .header import PictureHeader, read_picture_header, require_pixels
from .heif import decode_heif, is_heif
from .still_picture import still_picture

Picture = NDArray[np.uint8]
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 << 20
_GREY = 128
# The share of the picture that a face has in FlashHead's own crop, whose ratio is 2.0.
_FACE_SIDE = 0.5
_CURE = "pass a PNG, JPEG, WebP, GIF, TIFF, BMP, HEIC or AVIF picture"


class PortraitWarning(UserWarning):
    """A portrait was used although it will not look its best."""


def load_portrait(
    source: str | Path | bytes | NDArray[Any],
    size: int | tuple[int, int],
    *,
    resizing: Resizing = "lanczos",
    framing: Framing | None = None,
    crop: Crop = "auto",
    most_pixels: int = MAX_PIXELS,
) -> Picture:
    """Load, turn upright, crop and resize a portrait.

    A face that is far from the framing is found and brought there, where the extra `face` is installed. Transparent
    pixels are laid over neutral grey. A picture smaller than `size` is enlarged with a `PortraitWarning`. Of an
    animation the first picture is taken.

    Args:
        source: a PNG, JPEG, WebP, GIF, TIFF or BMP file or the bytes of one, with the extra `heic` also HEIC and AVIF,
            or uint8 [H, W, 3] RGB.
        size: height and width that the model takes, in pixels; one number makes a square.
        resizing: filter; both are stretched with the reduction, so that every pixel counts.
        framing: where the model wants the face, if anywhere.
        crop: "auto" as above, else the centre; "face" insists on a face; "centre" takes as much as fits around the
            middle; "none" the whole picture, over neutral grey where it has another form.
        most_pixels: a file's picture may have; it is decoded only then.

    Returns:
        uint8 [height, width, 3] RGB, a copy.

    Raises:
        PortraitError: missing, unreadable, no picture, truncated, too many pixels, far more work than its pixels are
            worth, or an array of another dtype or shape; or there is no face where one is insisted on.
    """
    height, width = height_and_width(size)
    picture = _checked(source) if isinstance(source, np.ndarray) else _read(source, most_pixels)
    if crop == "none":
        picture = _over_canvas(_over_grey(picture), height, width)
    elif crop == "face" or (crop == "auto" and framing is not None):
        found = _about_face(_over_grey(picture), framing or Framing(face_side=_FACE_SIDE), height, width, crop)
        if found is not None:
            return found
    high, wide = _inside(picture, height, width)
    top, left = (picture.shape[0] - high) // 2, (picture.shape[1] - wide) // 2
    middle = np.ascontiguousarray(_over_grey(picture[top : top + high, left : left + wide]))
    if min(high, wide) < min(height, width):
        warnings.warn(
            f"The portrait has {min(high, wide)} usable pixels along its shorter side and the model takes "
            f"{min(height, width)}, so it was enlarged; a larger picture gives a sharper face.",
            PortraitWarning,
            stacklevel=2,
        )
    if (high, wide) == (height, width):
        return middle.copy()
    return (_resize if resizing == "lanczos" else _resize_bilinear)(middle, height, width)


def portrait_for(
    spec: ModelSpec, source: str | Path | bytes | NDArray[Any], crop: Crop = "auto", *, most_pixels: int = MAX_PIXELS
) -> Picture:
    """`load_portrait` as a model wants its portraits."""
    return load_portrait(
        source,
        spec.image_size,
        resizing=spec.portrait_resizing,
        framing=spec.framing,
        crop=crop,
        most_pixels=most_pixels,
    )


def _inside(picture: Picture, height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest part of a picture that has the form of `height` x `width`."""
    high, wide = picture.shape[:2]
    return min(high, max(1, round(wide * height / width))), min(wide, max(1, round(high * width / height)))


def _about_face(picture: Picture, framing: Framing, height: int, width: int, crop: Crop) -> Picture | None:
    """The picture cut about its face; None where there is none, or its centre will do."""
    if not can_find_faces():
        if crop == "face":
            raise PortraitError("Finding the face needs OpenCV's detector; run pip install 'rap-edge[face]'.")
        return None
    face = find_face(np.ascontiguousarray(picture))
    if face is None:
        if crop == "face":
            raise PortraitError("There is no face to be found in the picture; pass another one, or --crop centre.")
        return None
    high, wide = _inside(picture, height, width)
    left, top = (picture.shape[1] - wide) / 2, (picture.shape[0] - high) / 2
    if stands_well(replace(face, x=face.x - left, y=face.y - top), framing, high, wide):
        return None
    return framed(np.ascontiguousarray(picture), face, framing, height, width)


def _over_canvas(picture: Picture, height: int, width: int) -> Picture:
    """The whole picture in the middle of a grey one that has the form of `height` x `width`."""
    high, wide = picture.shape[:2]
    size = max(high, round(wide * height / width)), max(wide, round(high * width / height))
    canvas = np.full((*size, 3), _GREY, np.uint8)
    top, left = (canvas.shape[0] - high) // 2, (canvas.shape[1] - wide) // 2
    canvas[top : top + high, left : left + wide] = picture
    return canvas


def _checked(picture: NDArray[Any]) -> Picture:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise PortraitError(
            f"The portrait is {picture.dtype}{list(picture.shape)} instead of uint8 [height, width, 3]; convert it."
        )
    return picture


def _read(source: str | Path | bytes, most_pixels: int) -> Picture:
    """uint8 [H, W, 3] RGB or [H, W, 4] RGBA, upright."""
    data = source if isinstance(source, bytes) else _read_bytes(Path(source))
    name = "The picture" if isinstance(source, bytes) else repr(str(source))
    try:
        if is_heif(data):
            return decode_heif(name, data, most_pixels)
        header = read_picture_header(data)
        if header is None or header.width < 1 or header.height < 1:
            raise PortraitError(f"{name} is no picture that can be read; {_CURE}.")
        require_pixels(name, header.width, header.height, most_pixels)
        return _upright(_decode(name, still_picture(name, data, header), header), header.orientation)
    except MemoryError:
        raise PortraitError(f"{name} takes more memory than there is; scale it down.") from None


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise PortraitError(f"{str(path)!r} does not exist; {_CURE}.")
        if not path.is_file():
            raise PortraitError(f"{str(path)!r} is not a file; {_CURE}.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PortraitError(f"{str(path)!r} is larger than {MAX_FILE_BYTES >> 20} MiB; scale it down.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PortraitError(f"{str(path)!r} cannot be read ({reason}); {_CURE}.") from None


def _decode(name: str, data: bytes, header: PictureHeader) -> Picture:
    import av
    from av.video.reformatter import Interpolation

    try:
        limit = {"max_pixels": str(MAX_PIXELS)}
        with av.open(io.BytesIO(data), "r", format=f"{header.format}_pipe", options=limit) as file:
            decoder = file.streams.video[0].codec_context
            # Without `explode` the missing rest of a truncated JPEG comes out grey; with it no TIFF may have odd tags.
            decoder.options = limit if header.format == "tiff" else limit | {"err_detect": "explode"}
            decoder.thread_count = 1
            frame = next(file.decode(file.streams.video[0]))
            # These flags interpolate the chroma; swscale's default repeats it.
            flags = (
                Interpolation.BICUBIC
                | Interpolation.ACCURATE_RND
                | Interpolation.FULL_CHR_H_INT
                | Interpolation.FULL_CHR_H_INP
            )
            rgba = frame.reformat(format="rgba", interpolation=flags).to_ndarray().astype(np.uint8, copy=False)
    except MemoryError:
        raise
    except (av.FFmpegError, StopIteration, ValueError, IndexError):
        raise PortraitError(f"{name} is damaged or cut off; save the picture again.") from None
    if rgba.shape[:2] != (header.height, header.width):
        raise PortraitError(f"{name} is damaged: its header states another size; save the picture again.")
    return rgba


def _over_grey(picture: Picture) -> Picture:
    colours, alpha = picture[..., :3], picture[..., 3:]
    if alpha.size == 0 or alpha.min() == 255:
        return colours
    weight = alpha.astype(np.uint16)
    mixed = (colours * weight + _GREY * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8)


def _upright(picture: Picture, orientation: int) -> Picture:
    """Undo an EXIF orientation (Exif 2.32, tag 0x0112)."""
    if orientation >= 5:
        picture = picture.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture


def _resize(picture: Picture, height: int, width: int) -> Picture:
    import av
    from av.video.reformatter import Interpolation

    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    # swscale stretches the Lanczos kernel with the reduction, so every source pixel counts.
    flags = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return frame.reformat(width=width, height=height, interpolation=flags).to_ndarray().astype(np.uint8, copy=False)


def _resize_bilinear(picture: Picture, height: int, width: int) -> Picture:
    """As Pillow does, to which swscale's bilinear filter comes within ten levels only."""
    rows, columns = (_weights(*lengths) for lengths in zip(picture.shape[:2], (height, width), strict=True))
    # Channel by channel: a large picture in floats would take more memory than its decoder has.
    planes = [rows @ picture[..., channel].astype(np.float32) @ columns.T for channel in range(3)]
    resized: Picture = np.rint(np.stack(planes, axis=-1)).astype(np.uint8)
    return resized


def _weights(length: int, wanted: int) -> NDArray[np.float32]:
    """How much each of `length` pixels counts for each of those `wanted`, [wanted, length]."""
    centres = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    weights = np.maximum(1.0 - np.abs(np.arange(length) - centres[:, None]) / max(length / wanted, 1.0), 0.0)
    shares: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares
