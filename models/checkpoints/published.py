"""Readers of published checkpoints of single networks: diffusers' LTX VAE and Hugging Face's wav2vec 2.0."""

from __future__ import annotations

from pathlib import Path

import torch

from ..audio_encoder import AudioEncoder, AudioEncoderConfig
from ..config import read_json_object
from ..vae import LtxVae, LtxVaeConfig
from .tensors import Checkpoint, load_weights, open_checkpoint

# Tensors of the pre-training and recognition heads, which no hidden state depends on.
WAV2VEC2_UNUSED = ("masked_spec_embed", "lm_head.", "quantizer.", "project_q.", "project_hid.", "adapter.")
_POSITIONAL = "encoder.pos_conv_embed.conv."
_WEIGHT_NORMS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


def diffusers_ltx_vae(folder: Path, dtype: torch.dtype = torch.float32) -> LtxVae:
    """The LTX 0.9.0 VAE in diffusers' layout: config.json and diffusion_pytorch_model.safetensors.

    Raises:
        CheckpointError: the folder holds no such VAE or one that cannot be read.
    """
    file = folder / "config.json"
    config = LtxVaeConfig.from_diffusers(read_json_object(file), str(file))
    with torch.device("meta"):
        vae = LtxVae(config)
    load_weights(vae, open_checkpoint(folder, "diffusion_pytorch_model"), dtype)
    return vae.eval()


def hugging_face_audio_encoder(folder: Path, dtype: torch.dtype = torch.float32) -> AudioEncoder:
    """wav2vec 2.0 in Hugging Face's layout: config.json and model.safetensors, with or without a head.

    Raises:
        CheckpointError: the folder holds no such encoder or one that cannot be read.
    """
    file = folder / "config.json"
    config = AudioEncoderConfig.from_hugging_face(read_json_object(file), str(file))
    with torch.device("meta"):
        encoder = AudioEncoder(config)
    checkpoint = open_checkpoint(folder, "model").stripped("wav2vec2.").without(WAV2VEC2_UNUSED)
    load_weights(encoder, _fold_weight_norm(checkpoint), dtype)
    return encoder.eval()


def _fold_weight_norm(checkpoint: Checkpoint) -> Checkpoint:
    for names in _WEIGHT_NORMS:
        gain, direction = (_POSITIONAL + name for name in names)
        if gain in checkpoint.stored and direction in checkpoint.stored:
            value = checkpoint.tensor(direction)
            # The norm is one per kernel position (weight_norm with dim=2).
            weight = checkpoint.tensor(gain) * value / value.norm(dim=(0, 1), keepdim=True)
            rest = checkpoint.without((gain, direction))
            return Checkpoint(rest.source, rest.stored, {f"{_POSITIONAL}weight": weight})
    return checkpoint
