"""Where the installed command of the calibration begins; see `rap_edge.runtime.cli.program`."""

from __future__ import annotations

from rap_edge.runtime.cli.program import start


def rap_calibrate() -> int:
    """The command `rap-calibrate`; returns its exit status."""
    return start("rap-calibrate", "rap_edge.calibration.cli")
