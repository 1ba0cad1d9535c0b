"""A real TURN server, coturn, on loopback only; it runs as long as the block."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TURNSERVER = shutil.which("turnserver")
SECRET, USER, PASSWORD = "a-secret-of-the-operator", "kiosk", "a-password"
_SECONDS = 20.0


@contextmanager
def turn_server(folder: Path, *options: str) -> Iterator[str]:
    """Its URL; it opens with credentials made from SECRET, or with USER and PASSWORD if `options` are *LONG_TERM."""
    port = _free_port()
    command = [
        str(TURNSERVER),
        *("-n", "--no-cli", "--no-tls", "--no-dtls", "--pidfile", str(folder / "turn.pid"), "--log-file", "stdout"),
        *("--listening-ip", "127.0.0.1", "--listening-port", str(port), "--relay-ip", "127.0.0.1", "--realm", "test"),
        *("--userdb", str(folder / "turn.db"), "--allow-loopback-peers", "--verbose"),
        *(options or BY_SECRET),
    ]
    with (folder / "turn.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _SECONDS
        while not _listens(port):
            assert time.monotonic() < deadline, (folder / "turn.log").read_text()
            time.sleep(0.02)
        yield f"turn:127.0.0.1:{port}?transport=udp"
    finally:
        process.terminate()
        process.wait(_SECONDS)


BY_SECRET = ("--use-auth-secret", "--static-auth-secret", SECRET)
LONG_TERM = ("--lt-cred-mech", "--user", f"{USER}:{PASSWORD}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
