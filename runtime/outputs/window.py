"""`Window`: an SDL window as a display."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks.needs import Need
from ..errors import OutputError
from ..session.chunk import Mark
from ..spec import height_and_width
from .protocols import Showing
from .sdl import load_sdl, sdl_error

_BACKGROUND = (18, 18, 20, 255)
_HELD_COLOR = (255, 176, 32, 255)
_DOT = 40
# Of a window that has just been opened.
_SMALLEST = 512


class Window:
    """A resizable window that keeps the picture's shape.

    `f` or a double click goes to full screen and back, Esc leaves full screen and then closes, `q` closes. A picture
    that is held because its moment's chunk is missing wears an amber bar at its lower edge.
    """

    def __init__(self, size: int | tuple[int, int], *, title: str = "rap-edge", full_screen: bool = False) -> None:
        """Open a window for frames of `size`, height and width in pixels; one number makes a square.

        Raises:
            OutputError: SDL is not installed or there is no display.
        """
        self._sdl: Any = load_sdl()
        (self._height, self._width), self._full_screen = height_and_width(size), full_screen
        self._window = self._renderer = self._texture = None
        self._open = True
        sdl = self._sdl
        try:
            _open_display(sdl)
        except OutputError:
            self._open = False
            raise
        sdl.SDL_SetHint(sdl.SDL_HINT_RENDER_SCALE_QUALITY, b"best")
        # A kiosk must not dim while somebody listens.
        sdl.SDL_DisableScreenSaver()
        try:
            self._create(title)
        except OutputError:
            self.close()
            raise

    def show(self, frame: NDArray[np.uint8], showing: Showing) -> None:
        """Show uint8 [height, width, 3] RGB; see `Display.show`."""
        sdl = self._sdl
        pixels = np.ascontiguousarray(frame)
        pointer = pixels.ctypes.data_as(ctypes.c_void_p)
        if sdl.SDL_UpdateTexture(self._texture, None, pointer, pixels.strides[0]) != 0:
            raise OutputError(f"The window does not take a frame ({sdl_error(sdl)}); start again.")
        self._draw(held=showing.mark is Mark.HELD)

    def poll(self) -> bool:
        """Handle keys and the window's own events; False once it has been closed."""
        sdl = self._sdl
        event = sdl.SDL_Event()
        while self._open and sdl.SDL_PollEvent(ctypes.byref(event)):
            self._handle(event)
        return self._open

    def close(self) -> None:
        """Close the window; may be called twice."""
        sdl, self._open = self._sdl, False
        if self._texture is not None:
            sdl.SDL_DestroyTexture(self._texture)
        if self._renderer is not None:
            sdl.SDL_DestroyRenderer(self._renderer)
        if self._window is not None:
            sdl.SDL_DestroyWindow(self._window)
            sdl.SDL_QuitSubSystem(sdl.SDL_INIT_VIDEO)
        self._window = self._renderer = self._texture = None

    def _create(self, title: str) -> None:
        sdl, centred = self._sdl, self._sdl.SDL_WINDOWPOS_CENTERED
        larger = max(1.0, _SMALLEST / min(self._height, self._width))
        width, height = round(larger * self._width), round(larger * self._height)
        flags = sdl.SDL_WINDOW_RESIZABLE | sdl.SDL_WINDOW_ALLOW_HIGHDPI
        if self._full_screen:
            flags |= sdl.SDL_WINDOW_FULLSCREEN_DESKTOP
        self._window = sdl.SDL_CreateWindow(title.encode(), centred, centred, width, height, flags) or None
        if self._window is not None:
            # Frames are paced by their sound; waiting for the screen as well would only hold that up.
            self._renderer = sdl.SDL_CreateRenderer(self._window, -1, 0) or None
        if self._renderer is not None:
            layout, access = sdl.SDL_PIXELFORMAT_RGB24, sdl.SDL_TEXTUREACCESS_STREAMING
            self._texture = sdl.SDL_CreateTexture(self._renderer, layout, access, self._width, self._height) or None
        if self._texture is None:
            raise OutputError(f"No window can be opened ({sdl_error(sdl)}); {_CURE}.")
        sdl.SDL_RenderSetLogicalSize(self._renderer, self._width, self._height)

    def _draw(self, *, held: bool) -> None:
        sdl, renderer = self._sdl, self._renderer
        sdl.SDL_SetRenderDrawColor(renderer, *_BACKGROUND)
        sdl.SDL_RenderClear(renderer)
        sdl.SDL_RenderCopy(renderer, self._texture, None, None)
        if held:
            height = max(self._height // _DOT, 1)
            sdl.SDL_SetRenderDrawColor(renderer, *_HELD_COLOR)
            sdl.SDL_RenderFillRect(renderer, sdl.SDL_Rect(0, self._height - height, self._width, height))
        sdl.SDL_RenderPresent(renderer)

    def _handle(self, event: Any) -> None:
        sdl = self._sdl
        if event.type == sdl.SDL_QUIT:
            self._open = False
        elif event.type == sdl.SDL_MOUSEBUTTONDOWN and event.button.clicks == 2:
            self._switch()
        elif event.type == sdl.SDL_KEYDOWN:
            key = event.key.keysym.sym
            if key == sdl.SDLK_f or (key == sdl.SDLK_ESCAPE and self._full_screen):
                self._switch()
            elif key in (sdl.SDLK_ESCAPE, sdl.SDLK_q):
                self._open = False

    def _switch(self) -> None:
        sdl, self._full_screen = self._sdl, not self._full_screen
        sdl.SDL_SetWindowFullscreen(self._window, sdl.SDL_WINDOW_FULLSCREEN_DESKTOP if self._full_screen else 0)


def window_needs() -> tuple[Need, ...]:
    """What a window needs, in the order in which to install or connect it."""
    return (load_sdl, _find_screen) if importlib.util.find_spec("sdl2") is None else (_try_display,)


def _try_display() -> None:
    sdl = load_sdl()
    _open_display(sdl)
    sdl.SDL_QuitSubSystem(sdl.SDL_INIT_VIDEO)


def _open_display(sdl: Any) -> None:
    if sdl.SDL_InitSubSystem(sdl.SDL_INIT_VIDEO) != 0:
        raise OutputError(f"There is no display for a window ({sdl_error(sdl)}); {_CURE}.")


def _find_screen() -> None:
    """What can be known without SDL: on Linux a desktop names its screen, and a console has a device."""
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
    if sys.platform == "linux" and not named and not any(Path("/dev/dri").glob("card*")):
        raise OutputError(f"There is no display for a window; {_CURE}.")


_CURE = "pass -o out.mp4 for a video, or run rap-serve for a page"
