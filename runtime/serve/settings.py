"""What an operator can set."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ServeError
from .ice import IceServer

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
LEAST_TOKEN = 16


@dataclass(frozen=True)
class Settings:
    """Settings of one server.

    Attributes:
        host: address to listen on; anything but loopback needs a token.
        port: TCP port; 0 takes a free one.
        token: the secret that opens the kiosk, or None on loopback.
        portraits: pictures to choose from beside the bundle's own.
        max_sessions: None measures how many the machine holds in real time.
        engine: what runs the bundle, see `engines.load_engines`; None takes ONNX Runtime.
        fallback: go on with ONNX Runtime where the plans cannot run.
        latency: longest chunk in seconds; None takes the model's own.
        idle_seconds: a session without speech for this long ends.
        origins: further origins ("https://kiosk.example") whose pages may use this server.
        ice_servers: STUN and TURN servers; none are needed on one machine or one network.
        certificate, key: PEM files for HTTPS, both or neither.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    portraits: tuple[Path, ...] = ()
    max_sessions: int | None = None
    engine: str | None = None
    fallback: bool = False
    latency: float | None = None
    idle_seconds: float = 120.0
    origins: tuple[str, ...] = ()
    ice_servers: tuple[IceServer, ...] = ()
    certificate: Path | None = None
    key: Path | None = None

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
        if (self.certificate is None) != (self.key is None):
            raise ServeError("A certificate and its key belong together; pass both --tls-cert and --tls-key.")
        if not 0 <= self.port <= 65535:
            raise ServeError(f"Port {self.port} does not exist; choose 0 to 65535.")
        if self.max_sessions is not None and self.max_sessions < 1:
            raise ServeError("A kiosk without sessions is of no use; pass --max-sessions 1 or more.")
        if not self.idle_seconds > 0:
            raise ServeError("The idle time must be above 0 seconds; pass --idle-seconds 120.")


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES
