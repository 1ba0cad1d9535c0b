"""What an operator can set."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..checks.bounds import Bounds, Real, Whole, shown
from ..errors import ServeError
from ..spec import LATENCY, Crop
from .admission import MOST_PLACES
from .http.names import is_loopback, origin_netloc
from .tickets import check_key
from .transports.ice import IceServer

LEAST_TOKEN, _LONGEST_TOKEN = 16, 1024
_SESSIONS = Whole(1, MOST_PLACES)
_IDLE = Real(0.001, 1e6, "seconds")
DRAIN = Real(0.0, 86400.0, "seconds")
SHARE = Real(0.01, 1.0)


@dataclass(frozen=True)
class Settings:
    """Settings of one server.

    Attributes:
        host: address to listen on; anything but loopback needs a token.
        port: TCP port; 0 takes a free one, None serves no page.
        token: the secret that opens the kiosk, or None on loopback.
        portraits: pictures to choose from beside the bundle's own.
        strict_portraits: refuse pictures that the model cannot draw well, the visitors' too.
        crop: what of a picture is taken, see `load_portrait`.
        max_sessions: None measures how many the machine holds in real time.
        engine: what runs the bundle, see `find_set`; None takes ONNX Runtime.
        fallback: go on with ONNX Runtime where the plans cannot run.
        latency: longest chunk in seconds; None takes the model's own.
        idle_seconds: a session without speech for this long ends.
        origins: further origins ("https://kiosk.example") whose pages may use this server.
        ice_servers: STUN and TURN servers; none are needed on one machine or one network.
        certificate, key: PEM files for HTTPS, both or neither.
        unix: where local clients connect, a path for a Unix socket; None lets none in.
        drain: seconds for which visitors may stay after SIGTERM, while nobody new is taken.
        share: part of the machine or GPU that is this server's, where several measure the same one.
        public_url: where visitors come to ("https://box1.example"); None is where it listens.
        ticket_key: shared with a dispatcher; visitors are let in by its tickets alone.
        operator_token: opens `/api/status`, `/api/drain` and `/metrics`; None closes the first two to everybody.
    """

    host: str = "127.0.0.1"
    port: int | None = 8080
    token: str | None = field(default=None, repr=False)
    portraits: tuple[Path, ...] = ()
    strict_portraits: bool = False
    crop: Crop = "auto"
    max_sessions: int | None = None
    engine: str | None = None
    fallback: bool = False
    latency: float | None = None
    idle_seconds: float = 120.0
    origins: tuple[str, ...] = ()
    ice_servers: tuple[IceServer, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    unix: Path | None = None
    drain: float = 0.0
    share: float = 1.0
    public_url: str | None = None
    ticket_key: str | None = field(default=None, repr=False)
    operator_token: str | None = field(default=None, repr=False)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def validate(self) -> None:
        """Raise `ServeError` if the settings would be unsafe or cannot work."""
        if not self.loopback and self.token is None and self.ticket_key is None:
            raise ServeError(
                f"Host {self.host!r} lets other machines in, so a token is needed; set RAP_SERVE_TOKEN or pass --token."
            )
        _check_token("The token", self.token)
        _check_token("The operator's token", self.operator_token)
        if self.operator_token is not None and self.operator_token == self.token:
            raise ServeError("The operator's token is the visitors' too; choose another one.")
        if self.ticket_key is not None:
            check_key(self.ticket_key)
            if self.token is not None:
                raise ServeError("Visitors with tickets have no token; leave out either it or the key of tickets.")
            if self.unix is not None:
                raise ServeError("--unix lets programs in without a ticket; leave out either it or the key of tickets.")
        if self.public_url is not None and origin_netloc(self.public_url.removesuffix("/")) is None:
            raise ServeError(f"--public-url {shown(self.public_url)} is no address; write https://box1.example.")
        for origin in self.origins:
            if origin_netloc(origin.removesuffix("/")) is None:
                raise ServeError(
                    f"--origin {shown(origin)} is no origin; write https://kiosk.example, with a port if it has one."
                )
        if (self.certificate is None) != (self.key is None):
            raise ServeError("A certificate and its key belong together; pass both --tls-cert and --tls-key.")
        if self.unix is not None and not (hasattr(os, "memfd_create") and hasattr(os, "eventfd")):
            raise ServeError("--unix needs Linux, whose memory without a name it shares; leave it out on this system.")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ServeError(f"Port {self.port} does not exist; choose 0 to 65535.")
        options: dict[str, tuple[Bounds, object]] = {
            "--max-sessions": (_SESSIONS, self.max_sessions),
            "--latency": (LATENCY, self.latency),
            "--idle-seconds": (_IDLE, self.idle_seconds),
            "--drain": (DRAIN, self.drain),
            "--share": (SHARE, self.share),
        }
        for option, (bounds, value) in options.items():
            if value is not None and (fault := bounds.fault(value)):
                raise ServeError(f"{option} {fault}.")


def _check_token(name: str, token: str | None) -> None:
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii()):
        raise ServeError(f"{name} is too short or not ASCII; use at least {LEAST_TOKEN} random characters.")
    if token is not None and (len(token) > _LONGEST_TOKEN or not _fits_a_header(token)):
        raise ServeError(f"{name} has spaces or more than {_LONGEST_TOKEN} characters; use letters and digits.")


def _fits_a_header(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
