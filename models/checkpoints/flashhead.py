"""Reader of the published SoulX-FlashHead checkpoints, Lite and Pro (arXiv 2602.07449).

Layout: Model_Lite and VAE_LTX, or Model_Pro and VAE_Wan (DiT; VAE in diffusers' layout), and, inside the folder or next
to it, wav2vec2-base-960h (Hugging Face's layout).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from rap_edge.runtime.checks.bounds import shown
from rap_edge.runtime.errors import CheckpointError
from rap_edge.runtime.spec import ModelSpec

from ..config import config_from_dict, known_fields, read_json_object
from ..dit import DiT, DiTConfig
from ..networks import Networks, check_agreement, dit_config
from ..vaes.interface import Vae
from .layouts import AUDIO_FOLDER, DIT_UNUSED, FAMILY, LITE, PRO, Member
from .published import diffusers_ltx_vae, diffusers_wan_vae, hugging_face_audio_encoder
from .tensors import load_weights, open_checkpoint

_VAE_READERS: Mapping[str, Callable[[Path, torch.dtype], Vae]] = MappingProxyType(
    {LITE.vae_folder: diffusers_ltx_vae, PRO.vae_folder: diffusers_wan_vae}
)


def is_flashhead_layout(folder: Path) -> bool:
    """Whether `folder` holds the published folders."""
    return any(os.path.isdir(folder / member.dit_folder) for member in FAMILY)


def member_of(folder: Path, spec: ModelSpec | None) -> Member:
    """Who is meant: the one that compresses as `spec` does, else the first one that lies in `folder`, Lite at last."""
    if spec is not None:
        return PRO if spec.temporal_compression == PRO.spec.temporal_compression else LITE
    return next((member for member in FAMILY if os.path.isdir(folder / member.dit_folder)), LITE)


def load_flashhead_networks(folder: Path, spec: ModelSpec | None, dtype: torch.dtype) -> Networks:
    """Read all three networks of Lite, or of Pro if `spec` is its or nothing else lies there.

    Raises:
        CheckpointError: a folder or file is missing or damaged, or the networks do not agree with the spec.
    """
    member = member_of(folder, spec)
    wanted = spec or member.spec
    homes = (folder / AUDIO_FOLDER, folder.parent / AUDIO_FOLDER)
    audio = next((home for home in homes if os.path.isdir(home)), None)
    if audio is None:
        raise CheckpointError(
            f"{folder} has no {AUDIO_FOLDER} in it or next to it; download the audio encoder that FlashHead names."
        )
    return check_agreement(
        Networks(
            wanted,
            load_flashhead_dit(folder / member.dit_folder, wanted, dtype),
            _VAE_READERS[member.vae_folder](folder / member.vae_folder, dtype),
            hugging_face_audio_encoder(audio, dtype),
        )
    )


def load_flashhead_dit(folder: Path, spec: ModelSpec, dtype: torch.dtype) -> DiT:
    """Read the DiT from config.json and diffusion_pytorch_model.safetensors, whole or sharded.

    The spec says what the published config does not: alpha, audio tokens and the shape of the features.

    Raises:
        CheckpointError: a file is missing or damaged, or describes a relative with other inputs.
    """
    file = folder / "config.json"
    config = flashhead_dit_config(read_json_object(file), spec, str(file))
    with torch.device("meta"):
        dit = DiT(config)
    checkpoint = open_checkpoint(folder, "diffusion_pytorch_model").without(DIT_UNUSED)
    load_weights(dit, checkpoint, dtype)
    return dit.eval()


def flashhead_dit_config(data: Mapping[str, Any], spec: ModelSpec, source: str) -> DiTConfig:
    """The DiT of a published config.json; raises `CheckpointError` for a relative with other inputs."""
    stride = [spec.temporal_compression, spec.spatial_compression, spec.spatial_compression]
    for key, only in (("has_image_input", False), ("vae_stride", stride)):
        if data.get(key, only) != only:
            raise CheckpointError(
                f"{source} says {key} {shown(data[key])} and only {only!r} is supported; use FlashHead's Lite or Pro."
            )
    patch = data.get("patch_size", [1, 1, 1])
    if not isinstance(patch, list) or len(patch) != 3 or patch[0] != 1 or patch[1] != patch[2]:
        raise CheckpointError(
            f"{source} says patch_size {shown(patch)} and only [1, p, p] is supported; use FlashHead's Lite or Pro."
        )
    published = {"dim", "in_dim", "out_dim", "ffn_dim", "freq_dim", "num_heads", "num_layers", "eps"}
    values = {key: value for key, value in known_fields(DiTConfig, data).items() if key in published}
    if missing := sorted(published - {"eps"} - values.keys()):
        raise CheckpointError(f"{source} lacks the key {missing[0]!r}; download the checkpoint again.")
    if values["num_layers"] != spec.num_layers:
        raise CheckpointError(
            f"{source} says num_layers {shown(values['num_layers'])} and spec {spec.name!r} needs {spec.num_layers}; "
            "use the spec of this checkpoint."
        )
    from_spec = dit_config(spec, ffn_dim=1)
    audio = ("audio_layers", "audio_width", "feature_window", "temporal_compression", "audio_tokens")
    values |= {key: getattr(from_spec, key) for key in (*audio, "audio_branches", "alpha")}
    return config_from_dict(DiTConfig, values | {"patch_side": patch[1]}, source).validate()
