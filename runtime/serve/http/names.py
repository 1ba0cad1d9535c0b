"""Names of machines as requests and operators write them, read by the letter: what is not one has no host."""

from __future__ import annotations

import ipaddress
import re

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_NETLOC = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9_.-]{1,253}))(?::([0-9]{1,5}))?")
_SCHEMES = ("http://", "https://")


def host_name(netloc: str) -> str | None:
    """The host in "host", "host:port" or "[IPv6]:port", in small letters; None if it is anything else."""
    match = _NETLOC.fullmatch(netloc.lower())
    if match is None or int(match[3] or 0) > 65535 or (match[1] and not _is_ipv6(match[1])):
        return None
    return match[1] or match[2]


def origin_netloc(origin: str) -> str | None:
    """What follows "http://" or "https://" in an origin, in small letters; None if it is no such origin."""
    origin = origin.lower()
    scheme = next((scheme for scheme in _SCHEMES if origin.startswith(scheme)), None)
    if scheme is None or host_name(origin.removeprefix(scheme)) is None:
        return None
    return origin.removeprefix(scheme)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
