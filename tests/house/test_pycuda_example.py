"""The PyCUDA example over a real PyCUDA: what it wraps is the memory that was rendered into, and its kernel compiles.

A GPU is not needed for either; PyCUDA itself, whose source package needs nvcc and numpy to build, and a libcuda are.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gpu.ptxas_report import find_nvcc

pytest.importorskip(
    "pycuda.gpuarray", reason="PyCUDA or libcuda is not here: pip builds it where nvcc is", exc_type=ImportError
)
import pycuda_handoff as example

from rap_edge.runtime import DeviceFrames

ADDRESS, FRAME = 1 << 20, 32 * 32 * 3


@pytest.fixture
def no_device(monkeypatch) -> None:
    """An array asks the device how many threads its own arithmetic would take; there may be none."""
    monkeypatch.setattr("pycuda.gpuarray.splay", lambda n, dev=None: ((1, 1), (32, 1, 1)))


def test_the_frames_are_wrapped_where_they_are(no_device) -> None:
    frames = DeviceFrames(ADDRESS, (24, 32, 32, 3), FRAME, None)
    array = example.wrapped(frames)
    assert (int(array.gpudata), array.shape, array.dtype) == (ADDRESS, (24, 32, 32, 3), np.uint8)
    assert array.strides == frames.strides


def test_every_other_frame_is_wrapped_without_a_copy_too(no_device) -> None:
    array = example.wrapped(DeviceFrames(ADDRESS, (24, 32, 32, 3), FRAME, None).every(2, 12))
    assert (int(array.gpudata), array.shape[0], array.strides[0]) == (ADDRESS, 12, 2 * FRAME)


def test_the_memory_lives_as_long_as_the_array(no_device) -> None:
    frames = DeviceFrames(ADDRESS, (1, 32, 32, 3), FRAME, None)
    assert example.wrapped(frames).base is frames


def test_the_kernel_compiles(tmp_path) -> None:
    from pycuda.compiler import compile as compiled

    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("there is no nvcc: it comes with the extra plugins")
    cubin = compiled(example.KERNEL, nvcc=nvcc, arch="sm_86", cache_dir=str(tmp_path))
    assert b"brightness" in cubin
