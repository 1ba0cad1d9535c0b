"""A session's loop that goes on with another engine when its own is lost in mid-stream."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, NumericalError
from ..spec import ModelSpec
from .carry import LoopState
from .device_frames import DeviceFrames
from .host_loop import LoopMaker
from .interface import Loop, Reference
from .pixels import Frames


class FallbackLoop:
    """Renders with one loop until an engine of it fails, then with another, from where the first one stood.

    A NaN is no lost engine: it would come again.
    """

    def __init__(self, first: Loop, second: Callable[[], Loop]) -> None:
        """`second` is opened when it is needed, which may take seconds."""
        self._loop, self._second = first, second
        self._lost: tuple[str, ...] = ()

    @classmethod
    def maker(cls, first: LoopMaker, second: LoopMaker) -> LoopMaker:
        """Makes such loops out of those that two makers make."""

        def make(spec: ModelSpec, reference: Reference, seed: int) -> Loop:
            return cls(first(spec, reference, seed), lambda: second(spec, reference, seed))

        return make

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the loop, and why it is not the first one."""
        return (*self._lost, *self._loop.notes)

    @property
    def on_device(self) -> DeviceFrames | None:
        """The last chunk's frames in a GPU's memory."""
        return self._loop.on_device

    @property
    def waveform(self) -> NDArray[np.float32]:
        """Takes the next chunk's audio window."""
        return self._loop.waveform

    @property
    def state(self) -> LoopState:
        """Where the loop stands."""
        return self._loop.state

    def restore(self, state: LoopState) -> None:
        """Stand where `state` says."""
        self._loop.restore(state)

    def render(
        self, steps: int, frame_step: int = 1, features: NDArray[np.float32] | None = None
    ) -> tuple[Frames, dict[str, float]]:
        """Render the next chunk; see `Loop.render`. Raises its errors once there is no other loop left."""
        try:
            return self._loop.render(steps, frame_step, features)
        except NumericalError:
            raise
        except EngineError as error:
            if self._lost:
                raise
            self._change(error)
            return self._loop.render(steps, frame_step, features)

    def _change(self, error: EngineError) -> None:
        other = self._second()
        other.restore(self._loop.state)
        other.waveform[...] = self._loop.waveform
        self._lost = (f"Fell back to ONNX Runtime on the CPU at chunk {other.state.index}: {error}",)
        self._loop = other
