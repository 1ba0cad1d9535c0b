"""Frames in PyCUDA, where they were rendered: a kernel of one's own reads them, and nothing is copied to the host.

    python examples/pycuda_handoff.py build/nano-fp16/dit.plan speech.wav

Needs a GPU that runs the plan, the extra `cuda`, and PyCUDA, which pip builds with nvcc. It prints how bright the
picture is, which takes one number a frame over the bus in place of the frame.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pycuda.compiler import SourceModule
from pycuda.gpuarray import GPUArray, zeros

from rap_edge.runtime import Avatar, DeviceFrames, RapEdgeError, read_audio, to_mono

# One block a frame, whose threads share its bytes out.
KERNEL = r"""
__global__ void brightness(const unsigned char *frames, long stride, int bytes, unsigned long long *sums)
{
    unsigned long long sum = 0;
    const unsigned char *frame = frames + blockIdx.x * stride;
    for (int i = threadIdx.x; i < bytes; i += blockDim.x)
        sum += frame[i];
    atomicAdd(&sums[blockIdx.x], sum);
}
"""


def wrapped(frames: DeviceFrames) -> GPUArray:
    """The same memory as PyCUDA's array, uint8 [T, H, W, 3]; two more chunks overwrite it."""
    interface = frames.__cuda_array_interface__
    address, _ = interface["data"]
    return GPUArray(interface["shape"], np.uint8, base=frames, gpudata=address, strides=interface["strides"])


def brightness(kernel, frames: GPUArray) -> np.ndarray:
    """Mean level of every frame, 0 to 255."""
    count, *sides = frames.shape
    sums = zeros(count, np.uint64)
    size = np.int32(np.prod(sides))
    kernel(frames.gpudata, np.int64(frames.strides[0]), size, sums.gpudata, grid=(count, 1), block=(256, 1, 1))
    return sums.get() / size


def main(plan: str, speech: str) -> int:
    try:
        # Makes the GPU's primary context current in this thread, which is PyCUDA's with `autoprimaryctx`.
        with Avatar.open(Path(plan).parent, engine=Path(plan).name) as avatar, read_audio(speech) as sound:
            import pycuda.autoprimaryctx  # noqa: F401

            kernel = SourceModule(KERNEL).get_function("brightness")
            with avatar.session(sample_rate=sound.rate) as session:
                for block in sound:
                    session.push(to_mono(block))
                    for chunk in session.chunks():
                        if chunk.on_device is None:
                            raise SystemExit("The frames are not on a GPU; pass a plan.")
                        print(f"{chunk.pts:.2f} s", brightness(kernel, wrapped(chunk.on_device)).round(1))
    except RapEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
