"""Ctrl-C that waits until a step which must not be torn is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[None]:
    """Hold SIGINT back during the block and deliver it behind the block, as `KeyboardInterrupt` by default.

    Only the main thread receives signals; elsewhere the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)

    previous = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if held:
        if callable(previous):
            previous(held[0], None)
        else:
            raise KeyboardInterrupt


@contextmanager
def ending_on_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """Let the first SIGINT call `end` and only a second one raise `KeyboardInterrupt`.

    For a source that nobody else ends: what it has given is still rendered. `end` must not wait.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        end()

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
