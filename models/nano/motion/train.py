"""Trains the motion-latent nano from the pictures of `rap_edge.models.nano.data.pairs`, stage after stage.

Every stage writes its state every few minutes and goes on from it when the command is given again, at any moment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.machine.available import THREADS

with program_needs_extra("train", __name__):
    import torch

    from rap_edge.models.motion_autoencoder import AutoencoderConfig

    from . import train_autoencoder

_STEPS = Whole(0, 10_000_000, "steps")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that `--stage` names."""
    return exit_status("train", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rap_edge.models.nano.motion.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and heldout/")
    parser.add_argument("--out", type=Path, required=True, help="folder of states, log, pictures and weights")
    parser.add_argument("--stage", choices=("autoencoder", "all"), default="all")
    parser.add_argument("--autoencoder-steps", type=argument(_STEPS), default=30_000)
    parser.add_argument("--threads", type=argument(THREADS), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.stage in ("autoencoder", "all"):
        train_autoencoder.train(options.data, options.out, options.autoencoder_steps, AutoencoderConfig())
    return 0


if __name__ == "__main__":
    sys.exit(main())
