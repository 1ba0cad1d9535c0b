"""Draws the twelve portraits: `python -m rap_edge.models.nano.portraits.draw --out models/nano/portraits`.

All of them are held out, as the demo's: nano has never seen them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.errors import OutputError

with program_needs_extra("train", __name__):
    import cv2

    from ..assets import PORTRAIT_INDEX, held_out_portrait

PEOPLE = {
    "Alma": PORTRAIT_INDEX,
    "Bruno": 44,
    "Cleo": 1,
    "Dario": 38,
    "Edda": 71,
    "Felix": 42,
    "Gaia": 51,
    "Hugo": 26,
    "Iris": 77,
    "Juno": 6,
    "Kaia": 79,
    "Luca": 33,
}
"""Index among the held-out identities by name; the first is the demo's."""
_QUALITY = 90


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a WebP file per person."""
    return exit_status("portraits", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description="Draw the portraits that a bundle of nano offers.")
    parser.add_argument("--out", type=Path, default=Path("models/nano/portraits"), help="folder, which must exist")
    parser.add_argument(
        "--size",
        type=argument(Whole(64, 4096, "pixels")),
        default=512,
        help="side of a portrait in pixels, a multiple of 64",
    )
    options = parser.parse_args(arguments)
    for name, index in PEOPLE.items():
        picture = cv2.cvtColor(held_out_portrait(index, options.size), cv2.COLOR_RGB2BGR)
        encoded = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1]
        try:
            (options.out / f"{name}.webp").write_bytes(encoded.tobytes())
        except OSError as error:
            raise OutputError(f"Cannot write into '{options.out}' ({error.strerror}); name another folder.") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
