"""The golden clip of a bundle: portrait, speech, and frames that PyTorch rendered from them.

In: a bundle that may come from a stranger. Out: frames whose number, size and dtype have been checked before they were
unpacked; nothing is unpickled. Frames are packed and unpacked here alone.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, first_line
from ..spec import ModelSpec
from .bundle import Bundle

MAX_FRAMES = 256
MAX_BYTES = 512 << 20
MAX_INDEX = 1 << 20
_HEADER_BYTES = 4096
_CURE = "export the bundle again"


@dataclass(frozen=True)
class GoldenClip:
    """What the self-test plays and compares.

    Attributes:
        portrait: content of the picture file.
        audio: speech file.
        frames: uint8 [N, H, W, 3], the expected ones.
        indices: int64 [N], their numbers in the video, rising.
        seed: of the noise.
        psnr: in dB, what the bundle reached when it was exported; None if the bundle does not say.
    """

    portrait: bytes
    audio: Path
    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    seed: int
    psnr: float | None


def read_golden(bundle: Bundle) -> GoldenClip:
    """Verify and read the golden clip of a bundle.

    Raises:
        BundleError: the bundle has none, or a file of it is missing, changed, or not what it must be.
    """
    golden = bundle.manifest.golden
    if golden.portrait is None or golden.audio is None or golden.frames is None:
        missing = next(name for name in ("portrait", "audio", "frames") if getattr(golden, name) is None)
        raise BundleError(f"The bundle has no golden {missing} for a self-test; {_CURE}.")
    if golden.seed is None:
        raise BundleError(f"The golden clip has no seed; {_CURE}.")
    bundle.verify([golden.audio])
    frames, indices = read_frames(bundle.read(golden.frames), bundle.manifest.spec)
    return GoldenClip(
        portrait=bundle.read(golden.portrait),
        audio=bundle.path(golden.audio),
        frames=frames,
        indices=indices,
        seed=golden.seed,
        psnr=golden.psnr,
    )


def read_frames(content: bytes, spec: ModelSpec) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The arrays `frames` uint8 [N, H, W, 3] and `indices` int64 [N] in an npz file, of at most
    `MAX_FRAMES` frames and `MAX_BYTES`.

    Raises:
        BundleError: the file is no such thing.
    """
    picture = (*spec.image_size, 3)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            indices = _array(archive, "indices", np.dtype("<i8"), ())
            frames = _array(archive, "frames", np.dtype("u1"), picture)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"The golden frames cannot be read ({first_line(error)}); {_CURE}.") from None
    rising = len(indices) == len(frames) > 0 and indices[0] >= 0 and bool((np.diff(indices) > 0).all())
    if not rising or indices[-1] > MAX_INDEX:
        raise BundleError(f"The golden frames are not numbered in rising order; {_CURE}.")
    return frames, indices


def pack_frames(frames: NDArray[np.uint8], indices: NDArray[np.int64]) -> bytes:
    """The npz file that `read_frames` reads.

    Args:
        frames: uint8 [N, H, W, 3], at most `MAX_FRAMES`.
        indices: int64 [N], their numbers in the video, rising.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, frames=frames, indices=indices)
    return packed.getvalue()


def _array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], item: tuple[int, ...]) -> NDArray[Any]:
    """One member, [N, *item]; raises ValueError unless dtype, shape and length are as they must be."""
    limit = min(_HEADER_BYTES + MAX_FRAMES * math.prod(item) * dtype.itemsize, MAX_BYTES)
    member = archive.getinfo(f"{name}.npy")
    # The other methods' modules end in errors of their own.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} is packed as numpy packs no file")
    with archive.open(member) as stream:
        # A short file can unpack to any length; the limit holds whatever its directory says.
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{name!r} is too long")
    start = 10 + int.from_bytes(content[8:10], "little")
    header = _header(dtype, item).fullmatch(content[:start])
    if header is None:
        raise ValueError(f"{name!r} is no {dtype.name} of shape [N{''.join(f', {size}' for size in item)}]")
    values = np.frombuffer(content, dtype, offset=start)
    count = int(header[1])
    if count > MAX_FRAMES or values.size != count * math.prod(item):
        raise ValueError(f"{name!r} is cut short or too long")
    return values.reshape(count, *item)


def _header(dtype: np.dtype[Any], item: tuple[int, ...]) -> re.Pattern[bytes]:
    """The one way in which numpy writes it; its own reader of other ways runs Python's parser on it."""
    shape = rf"\((\d{{1,4}}),{''.join(f' {size},' for size in item).removesuffix(',')}\)"
    text = rf"\{{'descr': '{re.escape(dtype.str)}', 'fortran_order': False, 'shape': {shape}, \}} *\n"
    return re.compile(rb"\x93NUMPY\x01\x00.." + text.encode(), re.DOTALL)
