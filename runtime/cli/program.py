"""Where the installed commands begin: Ctrl-C gives a sentence also while packages are imported.

This module imports next to nothing, so that there is hardly a moment before it.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from .interrupt import held_interrupt


def rap_run() -> int:
    """The command `rap-run`; returns its exit status."""
    return start("rap-run", "rap_edge.runtime.cli.run")


def rap_doctor() -> int:
    """The command `rap-doctor`; returns its exit status."""
    return start("rap-doctor", "rap_edge.runtime.cli.doctor")


def rap_serve() -> int:
    """The command `rap-serve`; returns its exit status."""
    return start("rap-serve", "rap_edge.runtime.serve.cli")


def start(program: str, module: str) -> int:
    """Import `module` and run its `main`; returns the exit status.

    Args:
        program: its name, before a sentence.
        module: where `main` is.
    """
    try:
        # An import that is torn ends in errors of its own.
        with held_interrupt():
            main = import_module(module).main
        status: int = main()
    except KeyboardInterrupt:
        print(f"{program}: Stopped; nothing was written.", file=sys.stderr)
        status = 130
    finally:
        # What is left is Python's own end, which has nothing to tear but a traceback to show.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return status
