"""`rap-bench`: the same chunk loop on several backends or bundles, side by side and in turn."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rap_edge.runtime.checks.bounds import Whole, argument, shown
from rap_edge.runtime.cli.arguments import add_threads
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import needs_extra
from rap_edge.runtime.engines import registry

# Chunks of a round, and rounds.
_COUNT = Whole(1, 10_000)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 done; 2 something is wrong, said in one sentence on stderr; 130 stopped by Ctrl-C or SIGTERM.
    """
    return exit_status("rap-bench", lambda: _run(_parser().parse_args(argv)), "Stopped.")


@needs_extra("export")
def _run(arguments: argparse.Namespace) -> int:
    # onnx takes a while to import: bad arguments and --help come before it.
    from .bench import bench, table

    result = bench(
        arguments.bundle,
        arguments.against,
        arguments.chunks,
        arguments.rounds,
        arguments.threads,
        arguments.checkpoint,
    )
    print(json.dumps(asdict(result), indent=2) if arguments.json else table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rap-bench", description="Time the same chunk loop on several backends or bundles, in turn."
    )
    parser.add_argument("--bundle", required=True, help="folder that rap-export wrote")
    parser.add_argument(
        "--against",
        type=_backends,
        default=(),
        metavar="torch,openvino,DIR",
        help="what to measure beside it: backends, or other bundles of the same model",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="what the bundle was exported from, for torch (not needed for the model that ships)",
    )
    parser.add_argument("--chunks", type=argument(_COUNT), default=4, help="chunks per round (default 4)")
    parser.add_argument("--rounds", type=argument(_COUNT), default=5, help="rounds (default 5)")
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _backends(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    if unknown := [name for name in names if name not in ("torch", *registry.BACKENDS) and not os.path.isdir(name)]:
        known = ", ".join(sorted({"torch", *registry.BACKENDS}))
        raise argparse.ArgumentTypeError(f"unknown backend {shown(unknown[0])}; choose {known} or a bundle")
    return names
