"""A ring of frames in memory that two processes share: the server writes, the client reads, neither waits.

The layout is in docs/local.md and, for C, in clients/c/rap_edge_client.h. The memory has no name, so that nothing is
left of it when both processes are gone, however they went.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ...errors import ServeError
from ...session.chunk import Mark
from ...session.stream_core import StreamFrame

MAGIC, LAYOUT_VERSION = b"RAPEDGE", 1
# 640 ms at 25 fps: what a reader may be late without losing anything.
SLOTS = 16
MARKS = tuple(Mark)
_PICTURE = _CACHE_LINE = 64
_HEADER_BYTES = 128
_HEADER = np.dtype(
    {
        "names": ["magic", "version", "header_bytes", "slots", "slot_bytes", "height", "width", "channels", "fps"]
        + ["sample_rate", "samples", "picture_offset", "sound_offset", "frames"],
        "formats": ["S8", *["<u4"] * 12, "<u8"],
        "offsets": [0, *range(8, 56, 4), 64],
        "itemsize": _HEADER_BYTES,
    }
)
# From Linux 5.1; Python has no name for it yet.
_F_SEAL_FUTURE_WRITE = 0x10


def _slot(size: tuple[int, int], samples: int, sound: int) -> np.dtype[np.void]:
    """One slot: a picture of `size`, height and width, and behind `sound` bytes at most `samples` samples."""
    return np.dtype(
        {
            "names": ["state", "published_ns", "pts", "utterance", "mark", "samples", "picture", "sound"],
            "formats": ["<u8", "<i8", "<f8", "<i8", "<u4", "<u4", ("u1", (*size, 3)), ("<f4", (samples,))],
            "offsets": [0, 8, 16, 24, 32, 36, _PICTURE, sound],
            "itemsize": _aligned(sound + 4 * samples),
        }
    )


class FrameRing:
    """The writer's side; one thread publishes.

    Attributes:
        memory: file descriptor of the shared memory, to be handed to the reader, who can neither write nor resize it.
        bell: file descriptor of an eventfd that is counted up with every frame.
    """

    def __init__(self, size: tuple[int, int], fps: int, rate: int) -> None:
        """Share memory for frames of `size`, height and width, `fps` per second, with sound at `rate` Hz.

        Raises:
            ServeError: the machine's memory is full, or this system has no such memory.
        """
        most = -(-rate // fps)
        sound = _aligned(_PICTURE + 3 * size[0] * size[1])
        layout = _slot(size, most, sound)
        length = _HEADER_BYTES + SLOTS * layout.itemsize
        self.memory, self.bell, mapped = _open(length)
        _seal(self.memory)
        header = np.ndarray(1, _HEADER, mapped)
        header[0] = (
            *(MAGIC, LAYOUT_VERSION, _HEADER_BYTES, SLOTS, layout.itemsize, *size, 3, fps, rate, most),
            *(_PICTURE, sound, 0),
        )
        self._slots = np.ndarray(SLOTS, layout, mapped, _HEADER_BYTES)
        self._states: NDArray[np.uint64] = self._slots["state"]
        self._frames: NDArray[np.uint64] = header["frames"]
        self._count = 0
        self._order = threading.Lock()
        self._order.acquire()

    def publish(self, frame: StreamFrame) -> int:
        """Copy a frame into the oldest slot and ring the bell; returns the frame's number, counted from 0."""
        number = self._count
        slot, place = self._slots[number % SLOTS], number % SLOTS
        self._states[place] = 2 * number + 1
        self._fence()
        np.copyto(slot["picture"], frame.picture)
        slot["sound"][: frame.sound.size] = frame.sound
        slot["samples"] = frame.sound.size
        slot["pts"] = frame.pts
        slot["utterance"] = -1 if frame.utterance is None else frame.utterance
        slot["mark"] = MARKS.index(frame.mark)
        slot["published_ns"] = time.monotonic_ns()
        self._fence()
        self._states[place] = 2 * number + 2
        self._fence()
        self._count = number + 1
        self._frames[0] = self._count
        # A counter that nobody reads is full after centuries, or where the reader has filled it.
        with suppress(BlockingIOError):
            os.eventfd_write(self.bell, 1)
        return number

    def close(self) -> None:
        """Let go of the descriptors; the reader keeps what it has mapped."""
        os.close(self.memory)
        os.close(self.bell)

    def _fence(self) -> None:
        # A release and the acquire behind it keep stores in order, also on ARM, where numpy's stores have none.
        self._order.release()
        self._order.acquire()


def _aligned(offset: int) -> int:
    return -(-offset // _CACHE_LINE) * _CACHE_LINE


def _open(length: int) -> tuple[int, int, mmap.mmap]:
    """Descriptors of memory without a name, all of it there, and of an eventfd; and the memory, to be written."""
    descriptors: list[int] = []
    try:
        descriptors.append(os.memfd_create("rap-edge-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        # Memory that is missing would end the process at the first write.
        os.posix_fallocate(descriptors[0], 0, length)
        descriptors.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        return descriptors[0], descriptors[1], mmap.mmap(descriptors[0], length)
    except OSError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ServeError(
            f"There is no memory for {SLOTS} frames ({error.strerror}); close other programs or other clients."
        ) from error


def _seal(memory: int) -> None:
    """Nobody resizes the memory, and nobody else writes it."""
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    with suppress(OSError):
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
