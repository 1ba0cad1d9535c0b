"""Groups of cores on one machine, each of one box: a group is claimed by a lock that its process's end gives back."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rap_edge.runtime.errors import FleetError


@dataclass(frozen=True)
class CoreGroup:
    """Cores that are this process's, and a number that no other group on the machine has.

    Attributes:
        number: counts from 0.
        cores: their numbers; none where no group of their own is left, and all are shared.
        lock: the descriptor of what holds it.
    """

    number: int
    cores: tuple[int, ...]
    lock: int

    def release(self) -> None:
        """Give the group back before the process ends."""
        os.close(self.lock)


def claim(size: int | None, folder: Path | None = None) -> CoreGroup:
    """The first group that nobody has; more boxes than groups, as while one takes another's place, share all cores.

    Args:
        size: cores of a group; None asks for a number alone.
        folder: of the locks; None is this user's own in the temporary folder.

    Raises:
        FleetError: the locks cannot be made.
    """
    folder = folder or Path(tempfile.gettempdir(), f"rap-fleet-boxes-{os.getuid()}")
    cores = sorted(os.sched_getaffinity(0))
    groups = [] if size is None else [tuple(cores[at : at + size]) for at in range(0, len(cores) - size + 1, size)]
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise FleetError(f"{str(folder)!r} belongs to somebody else; remove it.")
        number = 0
        while True:
            lock = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return CoreGroup(number, groups[number] if number < len(groups) else (), lock)
            os.close(lock)
            number += 1
    except OSError as error:
        raise FleetError(f"Boxes cannot share the cores by {str(folder)!r} ({error.strerror}); free it.") from None
