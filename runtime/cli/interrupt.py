"""SIGINT (Ctrl-C) and SIGTERM (what systemd and Docker send) end a program alike, and never in the middle of a step
which must not be torn.

Only the main thread receives signals; elsewhere everything here lets the block run as it is. A signal that the shell
has told the process to ignore, as it does for jobs in the background, stays ignored.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_once() -> Iterator[None]:
    """Let the first signal raise `KeyboardInterrupt` and leave out further ones, which would tear the cleaning up."""
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            raise KeyboardInterrupt

    with _handled(stop):
        yield


@contextmanager
def held_interrupt() -> Iterator[None]:
    """Hold the signals back during the block and deliver the first one behind it."""
    held: list[int] = []
    with _handled(held.append):
        yield
    if held:
        signal.raise_signal(held[0])


@contextmanager
def ending_on_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """Let the first signal call `end` and deliver only a second one.

    For a source that nobody else ends: what it has given is still rendered. `end` must not wait.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        end()

    with _handled(ask):
        yield


@contextmanager
def _handled(handle: Callable[[int], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        handle(number)

    # None is a handler that Python did not set and could not put back.
    heard = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
