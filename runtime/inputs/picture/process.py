"""Decodes pictures from strangers in a process of their own, which has little memory and little time.

`python -m rap_edge.runtime.inputs.picture.process SPEC CROP PIXELS BYTES SECONDS` reads a picture file on stdin and
writes uint8 [height, width, 3] RGB to stdout; for a picture that is refused it writes the sentence and ends with 2.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...errors import PortraitError
from ...spec import Crop, ModelSpec
from .portrait import PortraitWarning, portrait_for

# A decoded picture takes four bytes per pixel, several times over.
MOST_PIXELS = 32_000_000
MOST_BYTES = 1 << 30
# Of the processor; the clock is given more, since the machine may be busy.
MOST_SECONDS = 20
_PATIENCE = 2.0
_REFUSED = 2


def decode_picture(data: bytes, spec: ModelSpec, crop: Crop = "auto") -> NDArray[np.uint8]:
    """Decode, crop and resize a picture that may be meant to do harm, as `portrait_for` does with its bytes.

    Args:
        data: a file.
        spec: of the model whose portrait it will be.
        crop: see `load_portrait`.

    Returns:
        uint8 [*image_size, 3] RGB.

    Raises:
        PortraitError: as `load_portrait`, or the picture takes too much memory or time.
    """
    limits = (spec.to_json(), crop, MOST_PIXELS, MOST_BYTES, MOST_SECONDS)
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
    if done.returncode != 0 or len(done.stdout) != 3 * spec.pixels:
        raise _too_much()
    return np.frombuffer(done.stdout, np.uint8).reshape(*spec.image_size, 3)


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
    spec, crop = ModelSpec.from_json(sys.argv[1]), cast("Crop", sys.argv[2])
    pixels, memory, seconds = map(int, sys.argv[3:6])
    _limit(memory, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PortraitWarning)
            result = portrait_for(spec, sys.stdin.buffer.read(), crop, most_pixels=pixels).tobytes()
    except PortraitError as error:
        sys.stdout.buffer.write(str(error).encode())
        return _REFUSED
    sys.stdout.buffer.write(result)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
