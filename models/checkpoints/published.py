"""Readers of published checkpoints of single networks: diffusers' LTX VAE, Hugging Face's wav2vec 2.0 and HuBERT."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rap_edge.runtime.errors import CheckpointError

from ..audio_encoder import AudioEncoder, AudioEncoderConfig
from ..config import read_json_object
from ..vaes.ltx import LtxVae
from ..vaes.ltx_config import LtxVaeConfig
from ..vaes.wan import WanVae, WanVaeConfig
from .layouts import HEADS, NOISE, POSITIONAL, WAN_CLASS, WEIGHT_NORMS
from .tensors import Checkpoint, load_weights, open_checkpoint

_BATCH_NORM, _BATCH_NORM_EPS = "encoder.pos_conv_embed.batch_norm.", 1e-5


def diffusers_ltx_vae(folder: Path, dtype: torch.dtype = torch.float32) -> LtxVae:
    """An LTX-Video VAE of any version in diffusers' layout: config.json and diffusion_pytorch_model.safetensors.

    Raises:
        CheckpointError: the folder holds no such VAE or one that cannot be read.
    """
    file = folder / "config.json"
    config = LtxVaeConfig.from_diffusers(read_json_object(file), str(file))
    with torch.device("meta"):
        vae = LtxVae(config)
    load_weights(vae, open_checkpoint(folder, "diffusion_pytorch_model").without_ending(NOISE), dtype)
    return vae.eval()


def diffusers_wan_vae(folder: Path, dtype: torch.dtype = torch.float32) -> WanVae:
    """Wan 2.1's VAE in diffusers' layout: config.json and diffusion_pytorch_model.safetensors.

    Raises:
        CheckpointError: the folder holds no such VAE, one that cannot be read, or its pickle alone.
    """
    pickles = sorted(folder.glob("*.pth"))
    if pickles and not os.path.isfile(folder / "config.json"):
        # Wan and FlashHead publish it so.
        raise CheckpointError(
            f"{pickles[0]} is a .pth file, which can run code when it is read; convert it first with: python -c "
            f"\"from diffusers import AutoencoderKLWan as V; V.from_single_file('{pickles[0]}')"
            f".save_pretrained('{folder}')\""
        )
    file = folder / "config.json"
    config = WanVaeConfig.from_diffusers(read_json_object(file), str(file))
    with torch.device("meta"):
        vae = WanVae(config)
    load_weights(vae, open_checkpoint(folder, "diffusion_pytorch_model"), dtype)
    return vae.eval()


def diffusers_vae(folder: Path, dtype: torch.dtype = torch.float32) -> LtxVae | WanVae:
    """A VAE in diffusers' layout, of the class that its config.json names; raises `CheckpointError`."""
    name = read_json_object(folder / "config.json").get("_class_name")
    return (diffusers_wan_vae if name == WAN_CLASS else diffusers_ltx_vae)(folder, dtype)


def hugging_face_audio_encoder(
    folder: Path, dtype: torch.dtype = torch.float32, samples_per_frame: int = 640
) -> AudioEncoder:
    """wav2vec 2.0 or HuBERT in Hugging Face's layout: config.json and model.safetensors, with or without a head.

    What preprocessor_config.json says of normalisation is heeded if there is one.

    Args:
        folder: with the files.
        dtype: of the weights in memory.
        samples_per_frame: audio samples per video frame.

    Raises:
        CheckpointError: the folder holds no such encoder or one that cannot be read.
    """
    file, preprocessor = folder / "config.json", folder / "preprocessor_config.json"
    data = read_json_object(file) | {"samples_per_frame": samples_per_frame}
    if os.path.isfile(preprocessor):
        data |= {key: value for key, value in read_json_object(preprocessor).items() if key == "do_normalize"}
    config = AudioEncoderConfig.from_hugging_face(data, str(file))
    with torch.device("meta"):
        encoder = AudioEncoder(config)
    checkpoint = open_checkpoint(folder, "model").stripped("wav2vec2.").stripped("hubert.").without(HEADS)
    load_weights(encoder, _fold_batch_norm(_fold_weight_norm(checkpoint)), dtype)
    return encoder.eval()


def _fold_weight_norm(checkpoint: Checkpoint) -> Checkpoint:
    for names in WEIGHT_NORMS:
        gain, direction = (POSITIONAL + name for name in names)
        if gain in checkpoint.stored and direction in checkpoint.stored:
            value = checkpoint.tensor(direction)
            # The norm is one per kernel position (weight_norm with dim=2).
            weight = checkpoint.tensor(gain) * value / value.norm(dim=(0, 1), keepdim=True)
            rest = checkpoint.without((gain, direction))
            return Checkpoint(rest.source, rest.stored, {f"{POSITIONAL}weight": weight})
    return checkpoint


def _fold_batch_norm(checkpoint: Checkpoint) -> Checkpoint:
    names = [_BATCH_NORM + name for name in ("weight", "bias", "running_mean", "running_var")]
    if not all(name in checkpoint.stored for name in names):
        return checkpoint
    gain, offset, mean, variance = map(checkpoint.tensor, names)
    gain = gain / torch.sqrt(variance + _BATCH_NORM_EPS)
    rest = checkpoint.without((_BATCH_NORM,))
    folded = {f"{_BATCH_NORM}weight": gain, f"{_BATCH_NORM}bias": offset - mean * gain}
    return Checkpoint(rest.source, rest.stored, {**rest.computed, **folded})
