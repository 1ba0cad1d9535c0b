"""HEIC and AVIF pictures, which telephones make, through Pillow and pillow-heif, imported when one comes."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray

from ...errors import PortraitError
from .header import require_pixels

_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"))
_EXTRA = "pip install 'rap-edge[heic]'"


def is_heif(data: bytes) -> bool:
    """Whether a file is of the family of HEIC and AVIF (ISO 23008-12), by the brands that it states first."""
    size = int.from_bytes(data[:4], "big")
    brands = data[8 : min(size, 256)]
    return data[4:8] == b"ftyp" and any(brands[at : at + 4] in _BRANDS for at in (0, *range(8, len(brands), 4)))


def decode_heif(name: str, data: bytes, most_pixels: int) -> NDArray[np.uint8]:
    """The file's main picture.

    Args:
        name: of the picture, for errors.
        data: the file.
        most_pixels: it may have.

    Returns:
        uint8 [H, W, 4] RGBA, or [H, W, 3] RGB where all is opaque; upright.

    Raises:
        PortraitError: damaged, too large, or the packages that read it are not installed.
    """
    try:
        import pillow_heif
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise PortraitError(
            f"{name} is a HEIC or AVIF picture; install what reads it with: {_EXTRA}, or save it as PNG or JPEG."
        ) from None
    pillow_heif.register_heif_opener()
    try:
        with warnings.catch_warnings():
            # The number of pixels is checked here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("HEIF", "AVIF"))
        require_pixels(name, picture.width, picture.height, most_pixels)
        upright = ImageOps.exif_transpose(picture)
        return np.asarray(upright.convert("RGBA" if upright.has_transparency_data else "RGB"))
    except Image.DecompressionBombError:
        raise PortraitError(f"{name} has more than {most_pixels // 10**6} million pixels; scale it down.") from None
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError):
        raise PortraitError(f"{name} is damaged or cut off; save the picture again.") from None
