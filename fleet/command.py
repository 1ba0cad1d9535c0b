"""What a word after `rap-fleet` is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command of `rap-fleet`, as a module of `commands` offers it.

    Ray is imported in `run` at the earliest, so that the help needs none.

    Attributes:
        summary: what it does, for the help.
        arguments: adds its arguments to its parser.
        run: does it, and returns the exit status.
        stopped: the sentence for Ctrl-C and SIGTERM.
    """

    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    stopped: str = "Stopped."
