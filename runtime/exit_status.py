"""How the command line programs end when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from .errors import RapEdgeError
from .interrupt import stopping_once

BAD_INPUT, INTERRUPTED = 2, 130


def exit_status(program: str, run: Callable[[], int], stopped: str) -> int:
    """What `run` returns, or the status of what kept it from returning, which is said in one sentence on stderr.

    Args:
        program: its name, before the sentence.
        run: does the work and gives the exit status.
        stopped: the sentence for Ctrl-C and SIGTERM.
    """
    try:
        with stopping_once():
            return run()
    except RapEdgeError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"{program}: {stopped}", file=sys.stderr)
        return INTERRUPTED
