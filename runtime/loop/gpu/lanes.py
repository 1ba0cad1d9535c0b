"""Sessions of one GPU side by side: lanes with a stream and activations of their own.

Kernels of two lanes fill the GPU together where those of one leave multiprocessors idle. Plans, shapes and a session's
buffers are the same as in turn, so nothing that a session computes depends on the lane beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from weakref import WeakSet

from ...engines.interface import DeviceEngine
from ...spec import ModelSpec
from ..interface import Reference
from .loop import DeviceChunkLoop
from .shared import Device


class Lanes:
    """Makes sessions' loops, each on the lane that has the fewest of them."""

    def __init__(self, device: Device, engines: Mapping[str, DeviceEngine], count: int) -> None:
        """Let `count` sessions render at the same time; raises `EngineError` if the GPU has no room for it.

        Args:
            device: the GPU, which is the first lane.
            engines: by graph name; they take several threads at once.
            count: lanes.
        """
        self._engines, self._lock = engines, threading.Lock()
        self._lanes = (device, *(device.lane(engines) for _ in range(count - 1)))
        self._loops: tuple[WeakSet[DeviceChunkLoop], ...] = tuple(WeakSet() for _ in self._lanes)

    def new_loop(self, spec: ModelSpec, reference: Reference, seed: int) -> DeviceChunkLoop:
        """A session's loop; see `DeviceChunkLoop`."""
        with self._lock:
            lane = min(range(len(self._lanes)), key=lambda index: len(self._loops[index]))
            loop = DeviceChunkLoop(self._lanes[lane], self._engines, spec, reference, seed)
            self._loops[lane].add(loop)
            return loop
