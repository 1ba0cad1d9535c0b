"""A real TURN server, coturn, on loopback only; it runs as long as the block."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TURNSERVER = shutil.which("turnserver")
SECRET, USER, PASSWORD = "a-secret-of-the-operator", "kiosk", "a-password"
BY_SECRET = ("--use-auth-secret", "--static-auth-secret", SECRET)
LONG_TERM = ("--lt-cred-mech", "--user", f"{USER}:{PASSWORD}")
_SECONDS = 20.0


@contextmanager
def turn_server(
    folder: Path, mechanism: Sequence[str] = BY_SECRET, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Its URL; it opens with credentials made from SECRET, or with USER and PASSWORD where `mechanism` is LONG_TERM.

    With a certificate and its key, both PEM, it is reached over TLS, else over UDP.
    """
    port = _free_port()
    if certificate is None:
        url, listening = f"turn:127.0.0.1:{port}?transport=udp", ["--no-tls", "--listening-port", str(port)]
    else:
        url = f"turns:127.0.0.1:{port}?transport=tcp"
        listening = ["--listening-port", str(_free_port()), "--tls-listening-port", str(port)]
        listening += ["--cert", str(certificate[0]), "--pkey", str(certificate[1])]
    command = [
        str(TURNSERVER),
        *("-n", "--no-cli", "--no-dtls", "--pidfile", str(folder / "turn.pid"), "--log-file", "stdout", "--verbose"),
        *("--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--allow-loopback-peers", "--realm", "test"),
        *("--userdb", str(folder / "turn.db"), *listening, *mechanism),
    ]
    with (folder / "turn.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _SECONDS
        while not _listens(port):
            assert time.monotonic() < deadline, (folder / "turn.log").read_text()
            time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
