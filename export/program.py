"""Where the installed commands of the exporter begin; see `rap_edge.runtime.cli.program`."""

from __future__ import annotations

from rap_edge.runtime.cli.program import start


def rap_export() -> int:
    """The command `rap-export`; returns its exit status."""
    return start("rap-export", "rap_edge.export.cli")


def rap_bench() -> int:
    """The command `rap-bench`; returns its exit status."""
    return start("rap-bench", "rap_edge.export.bench.cli")
