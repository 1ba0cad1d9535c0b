"""Decodes pictures from strangers in a process of their own, which has little memory and little time.

`python -m rap_edge.runtime.inputs.picture.process SIZE RESIZING PIXELS BYTES SECONDS` reads a picture file on stdin and
writes uint8 [SIZE, SIZE, 3] RGB to stdout; for a picture that is refused it writes the sentence and ends with status 2.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
from numpy.typing import NDArray

from ...errors import PortraitError
from ...spec import Resizing
from .portrait import PortraitWarning, load_portrait

# A decoded picture takes four bytes per pixel, several times over.
MOST_PIXELS = 32_000_000
MOST_BYTES = 1 << 30
# Of the processor; the clock is given more, since the machine may be busy.
MOST_SECONDS = 20
_PATIENCE = 2.0
_REFUSED = 2


def decode_picture(data: bytes, size: int, resizing: Resizing = "lanczos") -> NDArray[np.uint8]:
    """Decode, crop and resize a picture that may be meant to do harm, as `load_portrait` does with its bytes.

    Args:
        data: a file.
        size: height and width of the result, in pixels.
        resizing: see `load_portrait`.

    Returns:
        uint8 [size, size, 3] RGB.

    Raises:
        PortraitError: as `load_portrait`, or the picture takes too much memory or time.
    """
    limits = (size, resizing, MOST_PIXELS, MOST_BYTES, MOST_SECONDS)
    # -P: a module that lies in the current folder is not imported instead of ours.
    command = [sys.executable, "-P", "-m", __name__, *map(str, limits)]
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE * MOST_SECONDS,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_much() from None
    except OSError as error:
        raise PortraitError(f"The picture cannot be read now ({error.strerror}); try again.") from None
    if done.returncode == _REFUSED:
        raise PortraitError(done.stdout.decode())
    if done.returncode != 0 or len(done.stdout) != size * size * 3:
        raise _too_much()
    return np.frombuffer(done.stdout, np.uint8).reshape(size, size, 3)


def _too_much() -> PortraitError:
    return PortraitError("The picture takes too much memory or time to read; save it smaller, as PNG or JPEG.")


def _limit(memory: int, seconds: int) -> None:
    """Hold this process to `memory` bytes and `seconds` of the processor, where the system has such limits."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _main() -> int:
    resizing: Resizing = "bilinear" if sys.argv[2] == "bilinear" else "lanczos"
    size, pixels, memory, seconds = (int(sys.argv[index]) for index in (1, 3, 4, 5))
    _limit(memory, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PortraitWarning)
            result = load_portrait(sys.stdin.buffer.read(), size, resizing=resizing, most_pixels=pixels).tobytes()
    except PortraitError as error:
        sys.stdout.buffer.write(str(error).encode())
        return _REFUSED
    sys.stdout.buffer.write(result)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
