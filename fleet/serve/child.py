"""`rap-serve` as a box's child: `python -m rap_edge.fleet.serve.child PARENT CORES WORDS...`.

It stays on its cores, and drains when its parent dies, so that nobody is cut off and nothing is left behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def main(words: Sequence[str]) -> int:
    """Run it; CORES is a comma between their numbers, or "-" for all."""
    parent, cores, *arguments = words
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if cores != "-":
            os.sched_setaffinity(0, map(int, cores.split(",")))
    if os.getppid() != int(parent):
        # It died before it could be told.
        return 1
    from rap_edge.runtime.serve.cli import main as serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
