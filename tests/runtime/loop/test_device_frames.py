"""Frames in device memory, wrapped by NumPy and PyTorch, which know nothing of us; the memory is the CPU's here."""

import gc
import weakref

import numpy as np
import pytest
import torch

from rap_edge.runtime.loop.device_frames import CPU, DeviceFrames


class Memory:
    """Frames, and somebody who owns them."""

    def __init__(self) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)

    def frames(self) -> DeviceFrames:
        return DeviceFrames(self.pixels.ctypes.data, self.pixels.shape, self.pixels[0].nbytes, self, (CPU, 0))


def test_others_see_the_frames_without_a_copy() -> None:
    memory = Memory()
    seen, tensor = np.from_dlpack(memory.frames()), torch.from_dlpack(memory.frames())
    memory.pixels[2, 1] = 7
    assert np.array_equal(seen, memory.pixels)
    assert np.array_equal(tensor.numpy(), memory.pixels)


@pytest.mark.parametrize(("step", "count"), [(1, 5), (2, 9), (3, 1), (1, 2), (5, 5)])
def test_a_lower_frame_rate_and_a_shorter_chunk_are_views(step: int, count: int) -> None:
    memory = Memory()
    seen = torch.from_dlpack(memory.frames().every(step, count)).numpy()
    assert np.array_equal(seen, memory.pixels[::step][:count])


def test_the_memory_lives_as_long_as_somebody_uses_it_and_no_longer() -> None:
    memory = Memory()
    alive = weakref.ref(memory)
    frames = memory.frames()
    unused, used = frames.__dlpack__(), np.from_dlpack(frames)
    del memory, frames, unused
    gc.collect()
    assert alive() is not None
    assert used.shape == (5, 4, 6, 3)
    del used
    gc.collect()
    assert alive() is None


def test_what_cannot_be_done_without_a_copy_is_refused() -> None:
    frames = Memory().frames()
    assert np.from_dlpack(frames, copy=False).shape == (5, 4, 6, 3)
    for asked in ({"copy": True}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError, match="without a copy"):
            frames.__dlpack__(**asked)


def test_the_cuda_array_interface_is_that_of_version_3() -> None:
    frames = DeviceFrames(4096, (24, 512, 512, 3), 512 * 512 * 3, None)
    assert frames.__dlpack_device__() == (2, 0)
    assert frames.every(2, 3).__cuda_array_interface__ == {
        "shape": (3, 512, 512, 3),
        "strides": (2 * 512 * 512 * 3, 512 * 3, 3, 1),
        "typestr": "|u1",
        "data": (4096, False),
        "version": 3,
        "stream": None,
    }
    assert not hasattr(Memory().frames(), "__cuda_array_interface__")
