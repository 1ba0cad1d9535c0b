"""STUN and TURN servers: what the operator names, and what a visitor and the server are told of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...checks.bounds import Bounds, Items, Text, shown
from ...errors import ServeError

# RFC 7064 and 7065, without literal IPv6 addresses, which aiortc does not read.
_URL = re.compile(
    r"(?:stuns?|(?P<turn>turns?)):(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<transport>\?transport=(?:udp|tcp))?"
)
_TEXT = Text(512)
_URLS = Items(_TEXT, 8)
_FIELDS: dict[str, Bounds] = {"urls": _URLS, "username": _TEXT, "credential": _TEXT, "secret": _TEXT}
_MOST_SERVERS = 8
_MOST_BYTES = 64 << 10
# A TURN server asks for them when a connection is made, not afterwards.
_LIFETIME_SECONDS = 600


@dataclass(frozen=True)
class IceServer:
    """STUN or TURN servers that share what opens them; raises `ServeError` for what no browser would take.

    Attributes:
        urls: "stun:host:port", "turn:host:port?transport=tcp", "turns:host:port" and the like.
        username: the user of a TURN server; beside a secret, a name for its log.
        credential: the user's password.
        secret: what coturn calls `static-auth-secret`: every visitor gets a password of their own, which a new
            connection cannot use ten minutes later.
    """

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check everything, once."""
        for name, bounds in _FIELDS.items():
            value = getattr(self, name)
            if (name == "urls" or value is not None) and (fault := bounds.fault(value)):
                # A fault quotes the value, which may be a password.
                fault = fault if name == "urls" else f"must be a text of at most {_TEXT.longest} plain characters"
                raise ServeError(f"{name!r} of an ICE server {fault}; see docs/serve.md.")
        if not self.urls:
            raise ServeError("An ICE server has no URL; name one such as turn:turn.example:3478.")
        turn = [url for url in self.urls if _is_turn(url)]
        if turn and self.secret is None and (self.username is None or self.credential is None):
            raise ServeError(
                f"The TURN server {turn[0]!r} opens with a user and a password only; "
                "name both, or its secret, in --ice-file or RAP_SERVE_ICE_SERVERS."
            )
        if self.secret is not None and self.credential is not None:
            raise ServeError(
                f"The TURN server {self.urls[0]!r} has a credential and a secret, from which credentials are made; "
                "name one of them."
            )

    def told(self, now: float | None = None) -> dict[str, Any]:
        """The `RTCIceServer` dictionary of a connection that is made at `now`, in seconds since 1970."""
        entry: dict[str, Any] = {"urls": list(self.urls)}
        if self.secret is not None:
            # draft-uberti-behave-turn-rest-00, which coturn and the hosted servers follow.
            expiry = int(time.time() if now is None else now) + _LIFETIME_SECONDS
            entry["username"] = f"{expiry}:{self.username}" if self.username else str(expiry)
            digest = hmac.digest(self.secret.encode(), entry["username"].encode(), hashlib.sha1)
            entry["credential"] = base64.b64encode(digest).decode()
        elif self.username is not None and self.credential is not None:
            entry |= {"username": self.username, "credential": self.credential}
        return entry


def parse_ice_servers(text: str, where: str) -> tuple[IceServer, ...]:
    """The list of `iceServers` that `RTCPeerConnection` takes, as JSON, with `secret` in place of `credential` or not.

    Raises:
        ServeError: it is something else; `where` says in whose words.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ServeError(
            f'{where} is no JSON list of ICE servers; write [{{"urls": "turn:turn.example:3478", "secret": "..."}}].'
        )
    if len(entries) > _MOST_SERVERS:
        raise ServeError(f"{where} names more than {_MOST_SERVERS} ICE servers, which makes browsers slow; name fewer.")
    return tuple(_read(entry, where) for entry in entries)


def read_ice_file(path: Path) -> tuple[IceServer, ...]:
    """See `parse_ice_servers`; raises `ServeError` also if the file cannot be read."""
    where = f"The file {shown(str(path))}"
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode()
    except OSError as error:
        raise ServeError(f"{where} cannot be read ({error.strerror}); pass --ice-file another one.") from None
    except ValueError:
        raise ServeError(f"{where} is not UTF-8 text; write JSON.") from None
    if len(text) > _MOST_BYTES:
        raise ServeError(f"{where} is larger than {_MOST_BYTES >> 10} KiB; it names a few ICE servers only.")
    return parse_ice_servers(text, where)


def readable_by_all(path: Path) -> bool:
    """Whether every user of the machine may read a file, where the platform knows such a thing."""
    return os.name == "posix" and bool(path.stat().st_mode & 0o004)


def _read(entry: dict[str, Any], where: str) -> IceServer:
    unknown = sorted(set(entry) - set(_FIELDS))
    if unknown:
        raise ServeError(f"{where} has an ICE server with {shown(unknown[0])}; {', '.join(_FIELDS)} are known.")
    urls = entry.get("urls", [])
    return IceServer(**{**entry, "urls": tuple(urls) if isinstance(urls, list) else (urls,)})


def _is_turn(url: str) -> bool:
    """Whether a URL is TURN's; raises `ServeError` if it is no ICE server's."""
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match["port"] or 1) <= 65535 or (match["transport"] and not match["turn"]):
        raise ServeError(
            f"The ICE server {shown(url)} is no STUN or TURN URL; "
            "write stun:HOST:PORT, turn:HOST:PORT?transport=udp or turns:HOST:PORT?transport=tcp."
        )
    return match["turn"] is not None
