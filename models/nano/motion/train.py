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

    from rap_edge.models.causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder
    from rap_edge.models.causal.dit import CausalDiT, CausalDiTConfig
    from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig
    from rap_edge.models.memory import channels_last

    from . import train_audio, train_decoder, train_dit
    from .errors import TrainingError
    from .state import load_average

_STEPS = Whole(0, 10_000_000, "steps")


@dataclass(frozen=True)
class Trained:
    """The networks of a run, with averaged weights, as far as it has come."""

    decoder: MotionDecoder
    dit: CausalDiT
    audio_encoder: CausalAudioEncoder


def trained_decoder(out: Path, config: MotionDecoderConfig) -> train_decoder.Trainee:
    """The averaged decoder of a run, with its reader of motion.

    Raises:
        TrainingError: that stage has not begun.
    """
    trainee = train_decoder.Trainee(config)
    if not load_average(out / "decoder", trainee):
        raise TrainingError(f"{out} holds no decoder; run the stage decoder first.")
    return trainee.requires_grad_(False).eval()


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
    trained = trained_decoder(out, MotionDecoderConfig())
    known = train_dit.known_statistics(out)
    if known is None:
        raise TrainingError(f"{out} holds no DiT; run the stage dit first.")
    mean, std = known
    trainee = train_dit.DiTTrainee(CausalDiTConfig(), trained.reader, mean, std)
    if not load_average(out / "dit", trainee):
        raise TrainingError(f"{out} holds no DiT; run the stage dit first.")
    measured = dataclasses.replace(
        MotionDecoderConfig(), latents_mean=tuple(mean.tolist()), latents_std=tuple(std.tolist())
    )
    decoder = MotionDecoder(measured)
    decoder.load_state_dict(trained.model.state_dict())
    return Trained(
        channels_last(decoder).requires_grad_(False).eval(),
        trainee.dit.requires_grad_(False).eval(),
        trained_audio(out),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that `--stage` names."""
    return exit_status("train", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rap_edge.models.nano.motion.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and heldout/")
    parser.add_argument("--out", type=Path, required=True, help="folder of states, log, pictures and weights")
    parser.add_argument("--stage", choices=("decoder", "audio", "dit", "all"), default="all")
    parser.add_argument("--decoder-steps", type=argument(_STEPS), default=30_000)
    parser.add_argument("--audio-steps", type=argument(_STEPS), default=8_000)
    parser.add_argument("--dit-steps", type=argument(_STEPS), default=12_000)
    parser.add_argument("--no-compile", action="store_true", help="begin at once, but make slower steps")
    parser.add_argument("--threads", type=argument(THREADS), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.stage in ("decoder", "all"):
        config, steps = MotionDecoderConfig(), options.decoder_steps
        train_decoder.train(options.data, options.out, steps, config, compiled=not options.no_compile)
    if options.stage in ("audio", "all"):
        train_audio.train(options.data, options.out, options.audio_steps, CausalAudioConfig())
    if options.stage in ("dit", "all"):
        trained = trained_decoder(options.out, MotionDecoderConfig())
        train_dit.train(
            options.data,
            options.out,
            options.dit_steps,
            CausalDiTConfig(),
            trained_audio(options.out),
            trained.reader,
            trained.model.motion_encoder,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
