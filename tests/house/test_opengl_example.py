"""The OpenGL example over a real OpenGL (Mesa's, on the CPU) on a screen without a monitor; CUDA is a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.planned import folder
from helpers.gpu.emulated_driver import driver
from helpers.gpu.emulated_kernels import kernels
from helpers.media.waves import speech, write_wav

GL = pytest.importorskip("OpenGL.GL", reason="PyOpenGL is not installed")
pytest.importorskip("sdl2", reason="PySDL2 is not installed")
import opengl_window as example  # noqa: E402
from helpers.gpu.fake_gpu import FakeStatus  # noqa: E402
from helpers.gpu.fake_opengl_gpu import FakeOpenGlGpu  # noqa: E402

from rap_edge.runtime.errors import RapEdgeError  # noqa: E402
from rap_edge.runtime.outputs.sdl import load_sdl  # noqa: E402

__all__ = ["driver", "folder", "kernels"]

SIZE = 32


@pytest.fixture(autouse=True)
def closed_screen(screen: str) -> Iterator[None]:
    """SDL stays with the screen that it was started on unless it is ended."""
    yield
    load_sdl().SDL_Quit()


@pytest.fixture
def gpu_driver(kernels) -> FakeOpenGlGpu:
    return FakeOpenGlGpu(kernels)


def test_a_frame_on_the_device_appears_upright_and_centred_in_the_window() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    window = example.Window("test", 4 * SIZE)
    picture = example.Picture((SIZE, SIZE), FakeOpenGlGpu())
    width, height = 3 * SIZE, SIZE
    picture.fill(frame.ctypes.data)
    picture.draw(width, height)
    GL.glBindFramebuffer(GL.GL_READ_FRAMEBUFFER, 0)
    GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, 0)
    shown = np.frombuffer(GL.glReadPixels(0, 0, width, height, GL.GL_RGB, GL.GL_UNSIGNED_BYTE), np.uint8)
    upright = shown.reshape(height, width, 3)[::-1]
    assert np.array_equal(upright[:, SIZE : 2 * SIZE], frame)
    assert not upright[:, :SIZE].any()
    picture.close()
    window.close()


def test_it_shows_every_frame_of_what_is_said(folder: Path, driver, tmp_path, capsys) -> None:
    audio = write_wav(str(tmp_path / "talk.wav"), speech(1.0))
    assert example.main(str(folder / "dit.plan"), audio, driver) == 0
    assert capsys.readouterr().out == "showed 25 frames\n"


def test_a_window_on_another_gpu_is_a_sentence(monkeypatch) -> None:
    gpu = FakeOpenGlGpu()
    refused = (FakeStatus.CUDA_ERROR_INVALID_CONTEXT, None)
    monkeypatch.setattr(gpu, "cuGraphicsGLRegisterBuffer", lambda buffer, flags: refused)
    window = example.Window("test", SIZE)
    with pytest.raises(RapEdgeError, match="CUDA and OpenGL do not share this GPU"):
        example.Picture((SIZE, SIZE), gpu)
    window.close()
