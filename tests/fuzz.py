"""Reads many bad inputs: `python tests/fuzz.py TARGET --count 10000`. See docs/bundle.md."""

from __future__ import annotations

import argparse
import sys
import time

from helpers.fuzz_targets import TARGETS
from helpers.fuzz_targets.target import sweep


def main(argv: list[str] | None = None) -> int:
    """Sweep the targets; the first exception that is not the library's own ends the sweep with its traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all by default")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="inputs of every target (2000)")
    parser.add_argument("--seed", type=int, help="other inputs than the default's")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.targets if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]!r}; choose from {', '.join(TARGETS)}")
    for name in arguments.targets or TARGETS:
        started = time.monotonic()
        tally = sweep(TARGETS[name], arguments.count, arguments.seed)
        print(f"{name}: {tally.taken} taken, {tally.refused} refused, {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
