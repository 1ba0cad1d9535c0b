"""The process that made a thing with threads and locks: a child that was forked later has the thing without them."""

from __future__ import annotations

import ctypes
import os

from ..errors import SessionError


class HomeProcess:
    """Remembers which process it was made in."""

    def __init__(self) -> None:
        self._number = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether that is the process that asks."""
        return self._number == os.getpid()

    def require(self) -> None:
        """Refuse to go on elsewhere, where a thread or a lock would be waited for without end.

        Raises:
            SessionError: this is another process.
        """
        if not self.is_here:
            raise SessionError(
                "The avatar was opened by the process that this one was forked from, whose threads do not come along; "
                "open it here, or start processes by multiprocessing's 'spawn'."
            )


def keep_elsewhere(thing: object, home: HomeProcess) -> None:
    """Outside its home, keep `thing` from ever being destroyed, which would wait for its threads."""
    if not home.is_here:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
