"""What an operator can set."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..checks.bounds import Bounds, Real, Whole, shown
from ..errors import ServeError
from ..spec import LATENCY, Crop
from .admission import MOST_PLACES
from .names import is_loopback, origin_netloc
from .transports.ice import IceServer

LEAST_TOKEN, _LONGEST_TOKEN = 16, 1024
_SESSIONS = Whole(1, MOST_PLACES)
_IDLE = Real(0.001, 1e6, "seconds")


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

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def validate(self) -> None:
        """Raise `ServeError` if the settings would be unsafe or cannot work."""
        if not self.loopback and self.token is None:
            raise ServeError(
                f"Host {self.host!r} lets other machines in, so a token is needed; set RAP_SERVE_TOKEN or pass --token."
            )
        if self.token is not None and (len(self.token) < LEAST_TOKEN or not self.token.isascii()):
            raise ServeError(f"The token is too short or not ASCII; use at least {LEAST_TOKEN} random characters.")
        if self.token is not None and (len(self.token) > _LONGEST_TOKEN or not _fits_a_header(self.token)):
            raise ServeError(f"The token has spaces or more than {_LONGEST_TOKEN} characters; use letters and digits.")
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
        }
        for option, (bounds, value) in options.items():
            if value is not None and (fault := bounds.fault(value)):
                raise ServeError(f"{option} {fault}.")


def _fits_a_header(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
