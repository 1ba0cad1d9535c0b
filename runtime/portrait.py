"""The portrait: any common picture to uint8 [size, size, 3] RGB, upright, cropped to the centre square.

PyAV (FFmpeg's decoders and libswscale) is imported when there is something to decode or resize, not before.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PortraitError
from .picture_header import PictureHeader, read_picture_header

Picture = NDArray[np.uint8]
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 << 20
_GREY = 128
_CURE = "pass a PNG, JPEG, WebP or BMP picture"


class PortraitWarning(UserWarning):
    """A portrait was used although it will not look its best."""


def load_portrait(source: str | Path | bytes | NDArray[Any], size: int) -> Picture:
    """Load, turn upright, crop and resize a portrait.

    Transparent pixels are laid over neutral grey. A picture smaller than `size` is enlarged with a
    `PortraitWarning`.

    Args:
        source: a PNG, JPEG, WebP or BMP file or the bytes of one, or uint8 [H, W, 3] RGB.
        size: height and width that the model takes, in pixels.

    Returns:
        uint8 [size, size, 3] RGB, a copy.

    Raises:
        PortraitError: missing, unreadable, no picture, truncated, more than 64 megapixels, or an array of another
            dtype or shape.
    """
    picture = _checked(source) if isinstance(source, np.ndarray) else _read(source)
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = np.ascontiguousarray(picture[top : top + side, left : left + side])
    if side < size:
        warnings.warn(
            f"The portrait has {side} usable pixels along its shorter side and the model takes {size}, so it was "
            "enlarged; a larger picture gives a sharper face.",
            PortraitWarning,
            stacklevel=2,
        )
    return square.copy() if side == size else _resize(square, size)


def _checked(picture: NDArray[Any]) -> Picture:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise PortraitError(
            f"The portrait is {picture.dtype}{list(picture.shape)} instead of uint8 [height, width, 3]; convert it."
        )
    return picture


def _read(source: str | Path | bytes) -> Picture:
    data = source if isinstance(source, bytes) else _read_bytes(Path(source))
    name = "The picture" if isinstance(source, bytes) else repr(str(source))
    header = read_picture_header(data)
    if header is None or header.width < 1 or header.height < 1:
        raise PortraitError(f"{name} is no picture that can be read; {_CURE}.")
    if header.width * header.height > MAX_PIXELS:
        raise PortraitError(
            f"{name} has {header.width} x {header.height} pixels, more than {MAX_PIXELS // 10**6} million; "
            "scale it down."
        )
    rgba = _decode(name, data, header)
    return _upright(_over_grey(rgba), header.orientation)


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
            # Without `explode` the missing rest of a truncated JPEG comes out grey.
            file.streams.video[0].codec_context.options = limit | {"err_detect": "explode"}
            frame = next(file.decode(file.streams.video[0]))
            # These flags interpolate the chroma; swscale's default repeats it.
            flags = (
                Interpolation.BICUBIC
                | Interpolation.ACCURATE_RND
                | Interpolation.FULL_CHR_H_INT
                | Interpolation.FULL_CHR_H_INP
            )
            rgba = frame.reformat(format="rgba", interpolation=flags).to_ndarray().astype(np.uint8, copy=False)
    except (av.FFmpegError, StopIteration, ValueError, IndexError):
        raise PortraitError(f"{name} is damaged or cut off; save the picture again.") from None
    if rgba.shape[:2] != (header.height, header.width):
        raise PortraitError(f"{name} is damaged: its header states another size; save the picture again.")
    return rgba


def _over_grey(rgba: Picture) -> Picture:
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgba[..., :3]
    weight = alpha.astype(np.uint16)
    mixed = (rgba[..., :3] * weight + _GREY * (255 - weight) + 127) // 255
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
