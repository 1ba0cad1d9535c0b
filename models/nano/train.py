"""Trains nano from a data set of `nano.data.dataset`: autoencoder, audio encoder, DiT, then the decoder.

The last stage refines the autoencoder's decoder alone, so the latents that the DiT knows stay as they are.

Every stage writes its state every few minutes and goes on from it when the command is given again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rap_edge.runtime.checks.bounds import Real, argument
from rap_edge.runtime.cli.exit_status import exit_status
from rap_edge.runtime.cli.extras import program_needs_extra
from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.machine.available import THREADS
from rap_edge.runtime.spec import ModelSpec

from ..presets import NANO

with program_needs_extra("train", __name__):
    import torch
    from safetensors.torch import load_file

    from ..audio_encoder import AudioEncoder
    from ..checkpoints.own import save_networks
    from ..dit import DiT
    from ..memory import channels_last
    from ..nano_vae import NanoVAE, NanoVAEConfig
    from ..networks import Networks, dit_config
    from .training import train_audio, train_dit, train_vae
    from .training.cache import cache_features, cache_latents, latent_statistics
    from .training.plot import plot_log
    from .training.stage import load_trained

_MINUTES = Real(0.0, 100_000.0, "minutes")


SPEC: ModelSpec = NANO
FFN_DIM = 768
AUDIO_HIDDEN = 192
TRAIN_SHIFT = 1.0


def rounded(module: torch.nn.Module) -> torch.nn.Module:
    """The same network with its weights rounded to fp16, as they are stored."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
    return module.eval()


def trained_vae(out: Path, data: Path) -> tuple[NanoVAE, train_vae.MotionHead]:
    """The trained autoencoder with fp16-rounded weights and measured latent statistics, and its motion head.

    Raises:
        OutputError: `out` holds none.
    """
    trainee = train_vae.VAETrainee(NanoVAEConfig())
    if not load_trained(out / "decoder", trainee) and not load_trained(out / "vae", trainee):
        raise OutputError(f"{out} holds no trained autoencoder; run the stage vae first.")
    rounded(trainee.vae)
    videos = train_vae.Clips.open(data / "train").video
    return latent_statistics(channels_last(trainee.vae), videos, 48), trainee.head


def trained_audio(out: Path) -> AudioEncoder:
    """The trained audio encoder with fp16-rounded weights; raises `OutputError` if `out` holds none."""
    trainee = train_audio.AudioTrainee(train_audio.NANO_AUDIO)
    if not load_trained(out / "audio", trainee):
        raise OutputError(f"{out} holds no trained audio encoder; run the stage audio first.")
    rounded(trainee)
    return trainee.encoder


def build_cache(out: Path, data: Path) -> None:
    """Latents and audio features of the training clips, unless they are there already."""
    cache = out / "cache"
    if (cache / "done").exists():
        return
    if not (cache / "latents").exists():
        vae, _ = trained_vae(out, data)
        cache_latents(vae, data / "train", cache)
        (cache / "latents").write_text("", encoding="utf-8")
    cache_features(trained_audio(out), data / "train", cache, SPEC.chunk_frames)
    (cache / "done").write_text("", encoding="utf-8")


def collect(out: Path, data: Path) -> Networks:
    """The three trained networks as they ship."""
    vae, _ = trained_vae(out, data)
    dit = DiT(dit_config(SPEC, ffn_dim=FFN_DIM, audio_hidden=AUDIO_HIDDEN))
    state = load_file(out / "dit_average" / "state.safetensors")
    prefix = "model/dit."
    dit.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    rounded(dit)
    return Networks(SPEC, dit, vae, trained_audio(out))


def save_half(networks: Networks, folder: Path) -> None:
    """Write the networks with fp16 weights to `folder` (rap-edge's own layout)."""
    for network in (networks.dit, networks.vae, networks.audio_encoder):
        assert isinstance(network, torch.nn.Module)
        network.half()
    save_networks(networks, folder)
    for network in (networks.dit, networks.vae, networks.audio_encoder):
        assert isinstance(network, torch.nn.Module)
        network.float()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that `--stage` names."""
    return exit_status("train", lambda: _run(arguments), "Stopped.")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rap_edge.models.nano.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and heldout/")
    parser.add_argument("--out", type=Path, required=True, help="folder of states, log, plot and weights")
    parser.add_argument("--stage", choices=("vae", "audio", "dit", "decoder", "all"), default="all")
    parser.add_argument("--vae-minutes", type=argument(_MINUTES), default=40.0)
    parser.add_argument("--audio-minutes", type=argument(_MINUTES), default=8.0)
    parser.add_argument("--dit-minutes", type=argument(_MINUTES), default=25.0)
    parser.add_argument("--decoder-minutes", type=argument(_MINUTES), default=15.0)
    parser.add_argument("--threads", type=argument(THREADS), default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.stage in ("vae", "all"):
        train_vae.train(options.data, options.out, options.vae_minutes, NanoVAEConfig())
    if options.stage in ("audio", "all"):
        train_audio.train(options.data, options.out, options.audio_minutes)
    if options.stage in ("dit", "all"):
        build_cache(options.out, options.data)
        vae, head = trained_vae(options.out, options.data)
        train_dit.train(
            options.out / "cache",
            options.data / "train",
            options.out,
            options.dit_minutes,
            dit_config(SPEC, ffn_dim=FFN_DIM, audio_hidden=AUDIO_HIDDEN),
            head,
            vae,
            latents=SPEC.chunk_latents,
            shift=TRAIN_SHIFT,
        )
    if options.stage in ("decoder", "all"):
        train_vae.refine(options.data, options.out, options.decoder_minutes, NanoVAEConfig())
    if options.stage in ("dit", "decoder", "all"):
        save_half(collect(options.out, options.data), options.out / "weights")
    plot_log(options.out / "log.jsonl", options.out / "training.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
