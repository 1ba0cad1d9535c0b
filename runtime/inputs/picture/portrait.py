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
from ...spec import Crop, Framing, ModelSpec, Resizing
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
    size: int,
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
        size: height and width that the model takes, in pixels.
        resizing: filter; both are stretched with the reduction, so that every pixel counts.
        framing: where the model wants the face, if anywhere.
        crop: "auto" as above, else the centre; "face" insists on a face; "centre" takes the largest square in the
            middle; "none" the whole picture, over neutral grey where it is no square.
        most_pixels: a file's picture may have; it is decoded only then.

    Returns:
        uint8 [size, size, 3] RGB, a copy.

    Raises:
        PortraitError: missing, unreadable, no picture, truncated, too many pixels, far more work than its pixels are
            worth, or an array of another dtype or shape; or there is no face where one is insisted on.
    """
    picture = _checked(source) if isinstance(source, np.ndarray) else _read(source, most_pixels)
    if crop == "none":
        picture = _on_square(_over_grey(picture))
    elif crop == "face" or (crop == "auto" and framing is not None):
        found = _about_face(_over_grey(picture), framing or Framing(face_side=_FACE_SIDE), size, crop)
        if found is not None:
            return found
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = np.ascontiguousarray(_over_grey(picture[top : top + side, left : left + side]))
    if side < size:
        warnings.warn(
            f"The portrait has {side} usable pixels along its shorter side and the model takes {size}, so it was "
            "enlarged; a larger picture gives a sharper face.",
            PortraitWarning,
            stacklevel=2,
        )
    if side == size:
        return square.copy()
    return _resize(square, size) if resizing == "lanczos" else _resize_bilinear(square, size)


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


def _about_face(picture: Picture, framing: Framing, size: int, crop: Crop) -> Picture | None:
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
    height, width = picture.shape[:2]
    side = min(height, width)
    centred = replace(face, x=face.x - (width - side) / 2, y=face.y - (height - side) / 2)
    if stands_well(centred, framing, side, side):
        return None
    return framed(np.ascontiguousarray(picture), face, framing, size, size)


def _on_square(picture: Picture) -> Picture:
    """The whole picture in the middle of a grey square."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), _GREY, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


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


def _resize(square: Picture, size: int) -> Picture:
    import av
    from av.video.reformatter import Interpolation

    frame = av.VideoFrame.from_ndarray(square, format="rgb24")
    # swscale stretches the Lanczos kernel with the reduction, so every source pixel counts.
    flags = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return frame.reformat(width=size, height=size, interpolation=flags).to_ndarray().astype(np.uint8, copy=False)


def _resize_bilinear(square: Picture, size: int) -> Picture:
    """As Pillow does, to which swscale's bilinear filter comes within ten levels only."""
    side = len(square)
    centres = (np.arange(size) + 0.5) * (side / size) - 0.5
    weights = np.maximum(1.0 - np.abs(np.arange(side) - centres[:, None]) / max(side / size, 1.0), 0.0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    # Channel by channel: a large picture in floats would take more memory than its decoder has.
    planes = [weights @ square[..., channel].astype(np.float32) @ weights.T for channel in range(3)]
    resized: Picture = np.rint(np.stack(planes, axis=-1)).astype(np.uint8)
    return resized
