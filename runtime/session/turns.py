"""Whose turn it is to render: first come, first served, so that no session starves another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """A semaphore that is fair: waiting threads get their turns in the order in which they came.

    Attributes:
        alone: whether the turn that is being had is one that others wait for, whatever room there is.
    """

    def __init__(
        self, at_once: int = 1, alone_after: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Let `at_once` threads have their turn at the same time.

        Args:
            at_once: turns at the same time.
            alone_after: once a session is the only one that has asked for so many seconds, it has its turns alone,
                with all that the machine has; None shares the machine always.
            clock: seconds.
        """
        self.at_once, self.alone = at_once, alone_after is not None
        self._free = at_once
        self._alone_after, self._clock = alone_after, clock
        self._asked: dict[int, float] = {}
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, who: object) -> Iterator[None]:
        """Wait for a turn of `who`, and give it back behind the block."""
        self._take(id(who))
        try:
            yield
        finally:
            with self._lock:
                self._heard(id(who))
                self._give_back()

    def leave(self, who: object) -> None:
        """`who` will ask no more."""
        with self._lock:
            self._asked.pop(id(who), None)

    def _take(self, who: int) -> None:
        with self._lock:
            self._heard(who)
            if not self._waiting and self._has_room():
                self._begin()
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
                    self._give_back()
            raise

    def _heard(self, who: int) -> None:
        if self._alone_after is not None:
            self._asked[who] = self._clock()

    def _has_room(self) -> bool:
        return self._free == self.at_once or (self._free > 0 and not self.alone)

    def _begin(self) -> None:
        if self._free == self.at_once and self._alone_after is not None:
            # What the engines go by may change only while none of them runs.
            since = self._clock() - self._alone_after
            self._asked = {who: at for who, at in self._asked.items() if at >= since}
            self.alone = not self._waiting and len(self._asked) <= 1
        self._free -= 1

    def _give_back(self) -> None:
        self._free += 1
        while self._waiting and self._has_room():
            mine = self._waiting.popleft()
            self._begin()
            mine.release()
