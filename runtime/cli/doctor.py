"""`rap-doctor`: what runs here, and the exact command for what does not."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence

from ..doctor.bundle import bundle_section
from ..doctor.findings import Diagnosis
from ..doctor.machine import diagnose, find_facts
from ..engines.engine_set import open_model
from .arguments import add_engine
from .exit_status import exit_status

EXIT_PROBLEM = 1
_WIDEST = 110


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0 nothing is wrong; 1 something that should work does not; 2 an argument is wrong, said in one sentence; 130
            stopped by Ctrl-C.
    """
    return exit_status("rap-doctor", lambda: _run(_parser().parse_args(argv)), "Stopped.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rap-doctor", description="Say what this machine can run, and give the exact command for what it cannot."
    )
    parser.add_argument(
        "--bundle", metavar="DIR", action="append", default=[], help="say what it needs too; may be repeated"
    )
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    engine = arguments.engine
    roots = arguments.bundle or ([] if engine is None else [None])
    bundles = [open_model(root, engine) for root in roots]
    facts = find_facts()
    diagnosis = diagnose(facts, [bundle_section(bundle, facts, chosen) for bundle, chosen in bundles])
    print(diagnosis.to_json() if arguments.json else _for_this_screen(diagnosis))
    return 0 if diagnosis.healthy else EXIT_PROBLEM


def _for_this_screen(diagnosis: Diagnosis) -> str:
    encoding = (sys.stdout.encoding or "ascii").lower()
    return diagnosis.to_screen(
        min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST),
        colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        signs=encoding.startswith("utf"),
    )


if __name__ == "__main__":
    sys.exit(main())
