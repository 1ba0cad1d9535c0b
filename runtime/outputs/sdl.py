"""SDL 2, loaded on first use: PySDL2 over the library that the pysdl2-dll wheel carries, or the system's."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from ..errors import OutputError


def load_sdl() -> Any:
    """The module `sdl2`.

    Raises:
        OutputError: PySDL2 or the SDL library is not installed.
    """
    try:
        with warnings.catch_warnings():
            # PySDL2 announces which library it has found.
            warnings.simplefilter("ignore")
            return import_module("sdl2")
    except ImportError as error:
        raise OutputError(
            f"The window needs PySDL2 and SDL 2 ({error}); run: pip install 'rap-edge[window]'."
        ) from None


def sdl_error(sdl: Any) -> str:
    """What SDL says went wrong last."""
    text: str = sdl.SDL_GetError().decode(errors="replace")
    return text.rstrip(".") or "unknown reason"
