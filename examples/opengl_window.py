"""Speech in an OpenGL window, drawn from where it was rendered: CUDA copies each frame into a buffer that OpenGL draws.

    python examples/opengl_window.py build/nano-fp16/dit.plan speech.wav

Needs a GPU that runs the plan and draws the window, and the extras `examples`, `window` and `cuda`. It shows the
picture; play the same samples with the sound library of your application.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sdl2
from cuda.bindings import driver as cuda_driver
from OpenGL import GL

from rap_edge.runtime import Avatar, Chunk, RapEdgeError, Session, read_audio, to_mono


class Picture:
    """A picture that CUDA writes and OpenGL draws. Both contexts are current in the calling thread."""

    def __init__(self, size: tuple[int, int], driver: Any = cuda_driver) -> None:
        (self._height, self._width), self._driver = size, driver
        self._buffer, self._texture = GL.glGenBuffers(1), GL.glGenTextures(1)
        GL.glBindBuffer(GL.GL_PIXEL_UNPACK_BUFFER, self._buffer)
        GL.glBufferData(GL.GL_PIXEL_UNPACK_BUFFER, 3 * self._height * self._width, None, GL.GL_STREAM_DRAW)
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)
        GL.glBindTexture(GL.GL_TEXTURE_2D, self._texture)
        form = GL.GL_RGB, GL.GL_UNSIGNED_BYTE
        GL.glTexImage2D(GL.GL_TEXTURE_2D, 0, GL.GL_RGB8, self._width, self._height, 0, *form, None)
        # A framebuffer that holds the texture can be copied to the window, which needs no shader.
        GL.glBindFramebuffer(GL.GL_READ_FRAMEBUFFER, GL.glGenFramebuffers(1))
        GL.glFramebufferTexture2D(GL.GL_READ_FRAMEBUFFER, GL.GL_COLOR_ATTACHMENT0, GL.GL_TEXTURE_2D, self._texture, 0)
        discard = driver.CUgraphicsRegisterFlags.CU_GRAPHICS_REGISTER_FLAGS_WRITE_DISCARD
        self._resource = self._call("cuGraphicsGLRegisterBuffer", int(self._buffer), int(discard))

    def fill(self, address: int) -> None:
        """Take a frame, uint8 [height, width, 3] RGB in device memory."""
        stream = 0
        self._call("cuGraphicsMapResources", 1, self._resource, stream)
        target, size = self._call("cuGraphicsResourceGetMappedPointer", self._resource)
        self._call("cuMemcpyDtoD", target, address, size)
        self._call("cuGraphicsUnmapResources", 1, self._resource, stream)
        GL.glTexSubImage2D(
            GL.GL_TEXTURE_2D, 0, 0, 0, self._width, self._height, GL.GL_RGB, GL.GL_UNSIGNED_BYTE, ctypes.c_void_p(0)
        )

    def draw(self, width: int, height: int) -> None:
        """Draw the last frame, as large as fits, in the middle of a window."""
        scale = min(width / self._width, height / self._height)
        wide, high = round(scale * self._width), round(scale * self._height)
        left, low = (width - wide) // 2, (height - high) // 2
        GL.glClear(GL.GL_COLOR_BUFFER_BIT)
        # A frame begins with its top row, a window with its lowest.
        source, target = (0, self._height, self._width, 0), (left, low, left + wide, low + high)
        GL.glBlitFramebuffer(*source, *target, GL.GL_COLOR_BUFFER_BIT, GL.GL_LINEAR)

    def close(self) -> None:
        """Let CUDA go of the buffer, before the window goes."""
        self._call("cuGraphicsUnregisterResource", self._resource)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._driver, name)(*arguments)
        if int(status) != 0:
            raise RapEdgeError(
                f"CUDA and OpenGL do not share this GPU ({name}: {status.name}); draw on the GPU that renders."
            )
        return values[0] if len(values) == 1 else tuple(values)


class Window:
    """A window of SDL's with a context of OpenGL's."""

    def __init__(self, title: str, side: int) -> None:
        sdl2.SDL_Init(sdl2.SDL_INIT_VIDEO)
        flags = sdl2.SDL_WINDOW_OPENGL | sdl2.SDL_WINDOW_RESIZABLE
        middle = sdl2.SDL_WINDOWPOS_CENTERED
        self._window = sdl2.SDL_CreateWindow(title.encode(), middle, middle, side, side, flags)
        self._context = sdl2.SDL_GL_CreateContext(self._window) if self._window else None
        if not self._context:
            reason = sdl2.SDL_GetError().decode()
            raise RapEdgeError(f"There is no window with OpenGL here ({reason}); start a desktop.")
        sdl2.SDL_GL_SetSwapInterval(1)

    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = ctypes.c_int(), ctypes.c_int()
        sdl2.SDL_GL_GetDrawableSize(self._window, width, height)
        return width.value, height.value

    def show(self) -> bool:
        """Show what has been drawn; False once the window has been closed."""
        sdl2.SDL_GL_SwapWindow(self._window)
        event = sdl2.SDL_Event()
        while sdl2.SDL_PollEvent(event):
            if event.type == sdl2.SDL_QUIT:
                return False
        return True

    def close(self) -> None:
        """Close it."""
        sdl2.SDL_GL_DeleteContext(self._context)
        sdl2.SDL_DestroyWindow(self._window)


def rendered_ahead(session: Session) -> Iterator[Chunk]:
    """The session's chunks, each rendered by another thread while the one before is shown."""
    chunks = session.chunks()
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, chunks, None)
        while (chunk := ahead.result()) is not None:
            # No more than one ahead: a chunk's frames stay on the GPU until two more are rendered.
            ahead = pool.submit(next, chunks, None)
            yield chunk


def show(avatar: Avatar, session: Session, window: Window, picture: Picture) -> int:
    """Show all that the session says; returns how many frames were shown."""
    shown, start = 0, None
    for chunk in rendered_ahead(session):
        frames = chunk.on_device
        if frames is None:
            raise RapEdgeError("The chunks are not on a GPU; open a plan that runs here.")
        # The first chunk starts the clock.
        start = time.monotonic() - chunk.pts if start is None else start
        for index in range(frames.shape[0]):
            due = start + chunk.pts + index * chunk.frame_step / avatar.spec.fps
            time.sleep(max(0.0, due - time.monotonic()))
            picture.fill(frames.address + index * frames.stride)
            picture.draw(*window.size())
            shown += 1
            if not window.show():
                return shown
    return shown


def main(plan: str, audio: str, driver: Any = cuda_driver) -> int:
    """Returns 0."""
    # Opening an avatar on a GPU makes the GPU's context current in this thread.
    with Avatar.open(Path(plan).parent, engine=Path(plan).name) as avatar, read_audio(audio) as source:
        window = Window("rap-edge", 512)
        picture = Picture(avatar.spec.image_size, driver)
        try:
            with avatar.session(sample_rate=source.rate) as session:
                for block in source:
                    session.push(to_mono(block))
                session.finish()
                print(f"showed {show(avatar, session, window, picture)} frames")
        finally:
            picture.close()
            window.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except RapEdgeError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
