"""What `attack_server` does to a server of its own, for a few seconds here and for longer where slow tests run."""

import asyncio
from pathlib import Path

import pytest
from attack_server import Server, attack, check
from helpers.bundles.tiny_bundle import write_tiny_bundle


@pytest.mark.parametrize(
    ("rounds", "handles"), [(1, None), pytest.param(6, 64, marks=pytest.mark.slow)], ids=["briefly", "few handles"]
)
def test_attacks_leave_health_places_descriptors_memory_and_log_as_they_were(
    tmp_path: Path, rounds: int, handles: int | None
) -> None:
    server = Server(write_tiny_bundle(tmp_path / "bundle"), tmp_path / "log", handles)
    with server.running():
        figures = asyncio.run(attack(server, rounds))
        check(figures, server)
