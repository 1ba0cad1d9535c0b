"""`VirtualCamera`: the frames as a camera that other programs can choose, where the platform has such a thing."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..spec import height_and_width
from .protocols import Showing


class VirtualCamera:
    """A display that sends frames to a virtual camera, through pyvirtualcam."""

    def __init__(self, size: int | tuple[int, int], fps: int, device: str | None = None) -> None:
        """Open a camera.

        Args:
            size: height and width of a frame in pixels; one number makes a square.
            fps: frames per second that the camera announces.
            device: such as "/dev/video2"; None takes the first that is free.

        Raises:
            OutputError: pyvirtualcam is not installed, or the system has no virtual camera.
        """
        height, width = height_and_width(size)
        try:
            library: Any = import_module("pyvirtualcam")
        except ImportError as error:
            raise OutputError(
                f"A virtual camera needs pyvirtualcam ({error}); run: pip install 'rap-edge[camera]'."
            ) from None
        try:
            self._camera: Any = library.Camera(width=width, height=height, fps=fps, device=device)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "unknown reason"
            raise OutputError(f"There is no virtual camera ({reason}); {_cure()}.") from None
        self._open = True

    @property
    def device(self) -> str:
        """The camera's name, as other programs show it."""
        name: str = self._camera.device
        return name

    def show(self, frame: NDArray[np.uint8], showing: Showing) -> None:
        """Send uint8 [height, width, 3] RGB; see `Display.show`."""
        try:
            self._camera.send(np.ascontiguousarray(frame))
        except (RuntimeError, OSError) as error:
            raise OutputError(f"The virtual camera is gone ({error}); start again.") from None

    def poll(self) -> bool:
        """A camera has no viewer who could close it."""
        return self._open

    def close(self) -> None:
        """Let go of the camera; may be called twice."""
        if self._open:
            self._open = False
            self._camera.close()


def _cure() -> str:
    if sys.platform == "linux":
        return "run: sudo apt-get install v4l2loopback-dkms && sudo modprobe v4l2loopback exclusive_caps=1"
    return "install OBS Studio, which brings one"
