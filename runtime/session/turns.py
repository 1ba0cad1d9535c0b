"""Whose turn it is to render: first come, first served, so that no session starves another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A semaphore that is fair: waiting threads get their turns in the order in which they came."""

    def __init__(self, at_once: int = 1) -> None:
        """Let `at_once` threads have their turn at the same time."""
        self._free = at_once
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and give it back behind the block."""
        self._take()
        try:
            yield
        finally:
            with self._lock:
                self._pass_on()

    def _take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()
        except BaseException:
            # Ctrl-C while waiting: leave the queue, or hand on the turn that has just been given.
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                else:
                    self._pass_on()
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self._free += 1
