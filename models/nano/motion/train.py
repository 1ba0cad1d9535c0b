"""Trains the motion-latent nano from the pictures of `rap_edge.models.nano.data.pairs`, stage after stage.

Every stage writes its state every few minutes and goes on from it when the command is given again, at any moment.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.machine.available import THREADS

with program_needs_extra("train", __name__):
    import torch

    from rap_edge.models.causal_audio_encoder import CausalAudioConfig, CausalAudioEncoder
    from rap_edge.models.causal_dit import CausalDiT, CausalDiTConfig
    from rap_edge.models.motion_autoencoder import Autoencoder, AutoencoderConfig

    from ...memory import channels_last
    from . import moves, train_audio, train_autoencoder, train_dit
    from .errors import TrainingError
    from .state import load_average

_STEPS = Whole(0, 10_000_000, "steps")


@dataclass(frozen=True)
class Trained:
    """The networks of a run, with averaged weights, as far as it has come."""

    autoencoder: Autoencoder
    dit: CausalDiT
    audio_encoder: CausalAudioEncoder


def trained_audio(out: Path) -> CausalAudioEncoder:
    """The averaged audio encoder of a run.

    Raises:
        TrainingError: that stage has not begun.
    """
    trainee = train_audio.AudioTrainee(CausalAudioConfig())
    if not load_average(out / "audio", trainee):
        raise TrainingError(f"{out} holds no audio encoder; run the stage audio first.")
    return trainee.encoder.requires_grad_(False).eval()


def collect(out: Path) -> Trained:
    """The networks of a run.

    Raises:
        TrainingError: a stage has not begun.
    """
    found = moves.trained_autoencoder(out, AutoencoderConfig())
    if found is None or not (out / "moves" / "statistics.json").exists():
        raise TrainingError(f"{out} holds no finished autoencoder; run the stages autoencoder and dit first.")
    model, reader = found
    _, mean, std = moves.load(out, model.config)
    config = dataclasses.replace(model.config, latents_mean=tuple(mean.tolist()), latents_std=tuple(std.tolist()))
    autoencoder = Autoencoder(config)
    autoencoder.load_state_dict(model.state_dict())
    trainee = train_dit.DiTTrainee(CausalDiTConfig(), reader, mean, std)
    if not load_average(out / "dit", trainee):
        raise TrainingError(f"{out} holds no DiT; run the stage dit first.")
    channels_last(autoencoder).requires_grad_(False).eval()
    return Trained(autoencoder, trainee.dit.requires_grad_(False).eval(), trained_audio(out))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that `--stage` names."""
    return exit_status("train", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rap_edge.models.nano.motion.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and heldout/")
    parser.add_argument("--out", type=Path, required=True, help="folder of states, log, pictures and weights")
    parser.add_argument("--stage", choices=("autoencoder", "audio", "dit", "all"), default="all")
    parser.add_argument("--autoencoder-steps", type=argument(_STEPS), default=30_000)
    parser.add_argument("--audio-steps", type=argument(_STEPS), default=8_000)
    parser.add_argument("--dit-steps", type=argument(_STEPS), default=12_000)
    parser.add_argument("--threads", type=argument(THREADS), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.stage in ("autoencoder", "all"):
        train_autoencoder.train(options.data, options.out, options.autoencoder_steps, AutoencoderConfig())
    if options.stage in ("audio", "all"):
        train_audio.train(options.data, options.out, options.audio_steps, CausalAudioConfig())
    if options.stage in ("dit", "all"):
        found = moves.trained_autoencoder(options.out, AutoencoderConfig())
        if found is None:
            raise TrainingError(f"{options.out} holds no autoencoder; run the stage autoencoder first.")
        model, reader = found
        moves.fit(options.out, options.data, model)
        train_dit.train(
            options.data,
            options.out,
            options.dit_steps,
            CausalDiTConfig(),
            trained_audio(options.out),
            reader,
            moves.load(options.out, model.config),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
