"""`rap-run --selftest`: does this bundle run rightly here, and how fast?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext

from ..bundle.pending_file import PendingFile
from ..doctor.selftest import SelfTest, run_selftest
from ..engines.engine_set import open_model
from .arguments import add_model, add_threads, require_model
from .exit_status import exit_status
from .overwriting import refuse_to_overwrite
from .progress import Progress, say

EXIT_FAILED = 1


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: the arguments of `rap-run`, `--selftest` among them.

    Returns:
        0 passed; 1 the frames differ; 2 something is wrong, said in one sentence on stderr; 130 stopped by Ctrl-C or
            SIGTERM.
    """
    return exit_status("rap-run", lambda: _start(argv), "The self-test was stopped.")


def _start(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    require_model(parser, arguments)
    result = _run(arguments)
    print(result.to_markdown())
    return 0 if result.passed else EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rap-run --selftest",
        description="Play the bundle's golden clip, compare it with the expected frames, and print one card.",
    )
    parser.add_argument("--selftest", action="store_true", required=True, help=argparse.SUPPRESS)
    add_model(parser)
    parser.add_argument("--report", metavar="JSON", help="write the result here too")
    add_threads(parser)
    return parser


def _run(arguments: argparse.Namespace) -> SelfTest:
    bundle, engine = open_model(arguments.bundle, arguments.engine)
    refuse_to_overwrite((arguments.report,), bundle)
    say(f"rap-run: loading {str(bundle.root)!r} ...")
    with (
        PendingFile(arguments.report) if arguments.report else nullcontext() as report,
        Progress("self-test", None, "s") as progress,
    ):
        result = run_selftest(
            bundle,
            engine=engine,
            fallback=arguments.fallback,
            threads=arguments.threads,
            on_progress=progress.update,
        )
        if report is not None:
            report.write(result.to_json().encode() + b"\n")
            report.commit()
    return result
