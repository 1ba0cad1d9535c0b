"""How many connections there may be, and which one goes when there are too many."""

from __future__ import annotations

import ipaddress
import os
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Protocol

from ...errors import ServeError

_MOST_CONNECTIONS = 512
_WANTED_HANDLES = 4096
# Pipes of a picture's decoder, files, sockets that are being closed.
_OWN_HANDLES = 24
# The ports of a WebRTC connection on every address of the machine, or a WebSocket.
_HANDLES_PER_PLACE = 12
_LEAST_HANDLES = 16


class Droppable(Protocol):
    """A connection that can be cut off."""

    def drop(self) -> None:
        """Cut it off at once."""


class Crowd:
    """The connections of those who have no place, in the order in which they began to wait.

    A newcomer is always let in: when there are too many, whoever has waited longest is dropped, which is hardly ever a
    visitor, whose requests come at once. One address (of IPv6, one network) has at most half of all, then its own go.
    """

    def __init__(self, most: int) -> None:
        """Hold `most` connections."""
        self._most, self._share = most, max(1, most // 2)
        self._waiting: OrderedDict[Droppable, str] = OrderedDict()
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        """Connections that are held."""
        return len(self._waiting)

    def add(self, connection: Droppable, address: str) -> None:
        """Let a connection in that comes from an IP address."""
        network = _network(address)
        if self._of_address[network] >= self._share:
            self._drop(next(held for held, of in self._waiting.items() if of == network))
        elif len(self._waiting) >= self._most:
            self.drop_oldest()
        self._waiting[connection] = network
        self._of_address[network] += 1

    def renew(self, connection: Droppable) -> None:
        """Note that a connection has done its part: its waiting begins again."""
        if connection in self._waiting:
            self._waiting.move_to_end(connection)

    def remove(self, connection: Droppable) -> None:
        """Forget a connection that is closed or has a place; doing it twice is harmless."""
        network = self._waiting.pop(connection, None)
        if network is not None:
            self._of_address[network] -= 1
            if not self._of_address[network]:
                del self._of_address[network]

    def drop_oldest(self) -> None:
        """Drop whoever has waited longest, if anybody is here."""
        if self._waiting:
            self._drop(next(iter(self._waiting)))

    def _drop(self, connection: Droppable) -> None:
        self.remove(connection)
        connection.drop()


def most_connections(places: int) -> int:
    """Connections that the process has file handles for, beside those that `places` visitors and the server need.

    Takes as many handles as the system allows without asking, up to 4096.

    Raises:
        ServeError: there are too few handles for anything.
    """
    handles = _handles()
    if handles is None:
        return _MOST_CONNECTIONS
    limit, used = handles
    free = limit - used
    if free < _LEAST_HANDLES:
        raise ServeError(
            f"The system lets this process open {limit} files and connections, of which it has used {used}; "
            f"allow it at least {used + _LEAST_HANDLES + _HANDLES_PER_PLACE * places} (ulimit -n)."
        )
    reserved = _OWN_HANDLES + _HANDLES_PER_PLACE * places
    return min(_MOST_CONNECTIONS, free - min(reserved, free // 2))


def _handles() -> tuple[int, int] | None:
    """The limit of file handles, raised where that is allowed, and those in use; None where there is no such limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_HANDLES)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    table = next((path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.is_dir()), None)
    return soft, len(os.listdir(table)) if table else 0


def _network(address: str) -> str:
    """What one client can have many of: of an IPv6 address its first 64 bits, else the address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
