"""Where the installed command of the fleet begins; see `rap_edge.runtime.cli.program`."""

from __future__ import annotations

from rap_edge.runtime.cli.program import start


def rap_fleet() -> int:
    """The command `rap-fleet`; returns its exit status."""
    return start("rap-fleet", "rap_edge.fleet.cli")
