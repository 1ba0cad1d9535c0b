"""Trains nano from the pictures of `nano.data.pairs` and the voices of `nano.data.banks`: decoder, codes, ears, DiT.

Every stage writes its state every few minutes and goes on from it when the command is given again, at any moment.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rap_edge.runtime.checks.bounds import Whole, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.machine.available import THREADS

from ..presets import NANO

with program_needs_extra("train", __name__):
    import torch

    from rap_edge.models.causal.audio_encoder import CausalAudioConfig
    from rap_edge.models.causal.dit import CausalDiTConfig
    from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig
    from rap_edge.models.causal.networks import CausalNetworks, check_causal_agreement
    from rap_edge.models.checkpoints.causal import save_causal_networks
    from rap_edge.models.memory import channels_last

    from .errors import TrainingError
    from .training import train_audio, train_codes, train_decoder, train_dit
    from .training.plot import plot_log
    from .training.state import load_average

_Trainee = TypeVar("_Trainee", bound=torch.nn.Module)
_STEPS = Whole(0, 10_000_000, "steps")


def trained_decoder(out: Path, config: MotionDecoderConfig) -> train_decoder.Trainee:
    """The averaged decoder of a run, with its reader of motion; raises `TrainingError` if that stage has not begun."""
    return _averaged(train_decoder.Trainee(config), out, "decoder")


def trained_codes(out: Path, decoder: MotionDecoder) -> train_codes.CodesTrainee:
    """The averaged code decoder of a run; raises `TrainingError` if that stage has not begun."""
    return _averaged(train_codes.CodesTrainee(decoder), out, "codes")


def trained_audio(out: Path) -> train_audio.AudioTrainee:
    """The averaged audio encoder of a run and its reader; raises `TrainingError` if that stage has not begun."""
    return _averaged(train_audio.AudioTrainee(CausalAudioConfig()), out, "audio")


@torch.no_grad()
def collect(out: Path) -> CausalNetworks:
    """The networks of a run as they ship, as far as it has come: averaged, their weights rounded to fp16.

    Raises:
        TrainingError: a stage has not begun.
    """
    trained = trained_decoder(out, MotionDecoderConfig())
    known = train_dit.known_statistics(out)
    if known is None:
        raise TrainingError(f"{out} holds no DiT; run the stage dit first.")
    mean, std = known
    trainee = train_dit.DiTTrainee(CausalDiTConfig(), trained.reader, mean, std)
    dit = _averaged(trainee, out, "dit").dit
    measured = dataclasses.replace(
        MotionDecoderConfig(), latents_mean=tuple(mean.tolist()), latents_std=tuple(std.tolist())
    )
    decoder = MotionDecoder(measured)
    decoder.load_state_dict(trained.model.state_dict())
    decoder.code_decoder = trained_codes(out, trained.model).codes
    networks = CausalNetworks(
        NANO,
        dit,
        channels_last(decoder).requires_grad_(False).eval(),
        trained_audio(out).encoder,
    )
    for module in networks.modules:
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
    return check_causal_agreement(networks)


def _averaged(trainee: _Trainee, out: Path, stage: str) -> _Trainee:
    if not load_average(out / stage, trainee):
        raise TrainingError(f"{out} holds no state of the stage {stage}; run it first.")
    return trainee.requires_grad_(False).eval()


def save_half(networks: CausalNetworks, folder: Path) -> None:
    """Write the networks with fp16 weights to `folder`."""
    half = copy.deepcopy(networks)
    for module in half.modules:
        module.half()
    save_causal_networks(half, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that `--stage` names."""
    return exit_status("train", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rap_edge.models.nano.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and heldout/")
    parser.add_argument("--out", type=Path, required=True, help="folder of states, log, pictures and weights")
    parser.add_argument("--stage", choices=("decoder", "codes", "audio", "dit", "all"), default="all")
    parser.add_argument("--decoder-steps", type=argument(_STEPS), default=4_700)
    parser.add_argument("--codes-steps", type=argument(_STEPS), default=3_200)
    parser.add_argument("--audio-steps", type=argument(_STEPS), default=1_500)
    parser.add_argument("--dit-steps", type=argument(_STEPS), default=4_000)
    parser.add_argument("--no-compile", action="store_true", help="begin at once, but make slower steps")
    parser.add_argument("--threads", type=argument(THREADS), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.stage in ("decoder", "all"):
        config, steps = MotionDecoderConfig(), options.decoder_steps
        train_decoder.train(options.data, options.out, steps, config, compiled=not options.no_compile)
    if options.stage in ("codes", "all"):
        whole = trained_decoder(options.out, MotionDecoderConfig()).model
        train_codes.train(options.data, options.out, options.codes_steps, whole)
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
        save_half(collect(options.out), options.out / "weights")
    plot_log(options.out / "log.jsonl", options.out / "training.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
