"""`rap-fleet`: many boxes and many clips, on Ray."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from rap_edge.runtime.cli.exit_status import exit_status

from . import commands
from .command import Command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        What the command returns; 2 something is wrong, said in one sentence on stderr; 130 stopped by Ctrl-C or
            SIGTERM.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    known = _commands()
    stopped = known[words[0]].stopped if words and words[0] in known else "Stopped."
    return exit_status("rap-fleet", lambda: _start(known, words), stopped)


def _start(known: Mapping[str, Command], words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rap-fleet",
        description="Many boxes and many clips, on Ray.",
        epilog="Needs the extra: pip install 'rap-edge[fleet]'. Everything about it is in docs/fleet.md.",
    )
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in known.items():
        made = choices.add_parser(name, help=command.summary, description=command.summary)
        command.arguments(made)
        made.set_defaults(run=command.run)
    arguments = parser.parse_args(words)
    status: int = arguments.run(arguments)
    return status


def _commands() -> Mapping[str, Command]:
    """Those of `commands`, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    return {name: import_module(f"{commands.__name__}.{name}").COMMAND for name in names}


if __name__ == "__main__":
    sys.exit(main())
