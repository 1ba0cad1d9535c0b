"""The stand-in for the driver, with OpenGL's buffers as device memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from helpers.gpu.fake_gpu import FakeCudaDriver, FakeStatus
from OpenGL import GL


class FakeOpenGlGpu(FakeCudaDriver):
    """A buffer is mapped as memory of the host, which is written back when it is unmapped."""

    CUgraphicsRegisterFlags = SimpleNamespace(CU_GRAPHICS_REGISTER_FLAGS_WRITE_DISCARD=2)

    def cuGraphicsGLRegisterBuffer(self, buffer, flags):  # noqa: N802
        return FakeStatus.CUDA_SUCCESS, (buffer, flags)

    def cuGraphicsMapResources(self, count, resource, stream):  # noqa: N802
        size = GL.glGetBufferParameteriv(GL.GL_PIXEL_UNPACK_BUFFER, GL.GL_BUFFER_SIZE)
        self.mapped = np.zeros(int(size), np.uint8)
        return (FakeStatus.CUDA_SUCCESS,)

    def cuGraphicsResourceGetMappedPointer(self, resource):  # noqa: N802
        return FakeStatus.CUDA_SUCCESS, self.mapped.ctypes.data, self.mapped.nbytes

    def cuMemcpyDtoD(self, target, source, size):  # noqa: N802
        self._copy(target, source, size, 0)
        return (FakeStatus.CUDA_SUCCESS,)

    def cuGraphicsUnmapResources(self, count, resource, stream):  # noqa: N802
        GL.glBufferSubData(GL.GL_PIXEL_UNPACK_BUFFER, 0, self.mapped.nbytes, self.mapped)
        return (FakeStatus.CUDA_SUCCESS,)

    def cuGraphicsUnregisterResource(self, resource):  # noqa: N802
        return (FakeStatus.CUDA_SUCCESS,)
