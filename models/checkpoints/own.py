"""The checkpoint layout of rap-edge itself.

A folder with spec.json and the folders dit, vae and audio_encoder, each of config.json and model.safetensors.
The VAE's config says its "architecture": "ltx", "wan" or "nano".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save_file
from torch import nn

from rap_edge.runtime.checks.bounds import shown
from rap_edge.runtime.errors import CheckpointError, OutputError, SpecError
from rap_edge.runtime.spec import ModelSpec

from ..audio_encoder import AudioEncoder, AudioEncoderConfig
from ..config import config_from_dict, config_to_dict, read_json_object
from ..dit import DiT, DiTConfig
from ..networks import NetworkConfigs, Networks, check_agreement, vae_config
from ..vaes.interface import Vae
from ..vaes.ltx import LtxVae
from ..vaes.ltx_config import LtxVaeConfig
from ..vaes.wan import WanVae, WanVaeConfig
from .published import diffusers_vae, hugging_face_audio_encoder
from .tensors import load_weights, open_checkpoint

if TYPE_CHECKING:
    from ..nano_vae import NanoVAEConfig

STEM = "model"
_ARCHITECTURES: Mapping[type, str] = MappingProxyType({LtxVaeConfig: "ltx", WanVaeConfig: "wan"})


def is_own_layout(folder: Path) -> bool:
    """Whether `folder` is laid out as `save_networks` does."""
    return os.path.isfile(folder / "spec.json") and os.path.isdir(folder / "dit")


def load_own_networks(folder: Path, spec: ModelSpec | None, dtype: torch.dtype) -> Networks:
    """Read what `save_networks` wrote; `spec` stands in for spec.json if given.

    Raises:
        CheckpointError: a file is missing or damaged, or the networks do not agree with the spec.
    """
    wanted = spec or read_own_spec(folder / "spec.json")
    return check_agreement(
        Networks(
            wanted,
            load_own_dit(folder / "dit", dtype),
            load_own_vae(folder / "vae", dtype),
            load_own_audio_encoder(folder / "audio_encoder", dtype, wanted.samples_per_frame),
        )
    )


def read_own_configs(folder: Path) -> NetworkConfigs:
    """The sizes of the networks that `save_networks` wrote, without their weights; raises `CheckpointError`."""
    return NetworkConfigs(
        dit=_dit_config(folder / "dit"),
        vae=_vae_config(folder / "vae"),
        audio_encoder=_audio_encoder_config(folder / "audio_encoder"),
    )


def load_own_dit(folder: Path, dtype: torch.dtype) -> DiT:
    """Read a DiT from its config.json and model.safetensors; raises `CheckpointError`."""
    with torch.device("meta"):
        dit = DiT(_dit_config(folder))
    load_weights(dit, open_checkpoint(folder, STEM), dtype)
    return dit.eval()


def load_own_audio_encoder(folder: Path, dtype: torch.dtype, samples_per_frame: int) -> AudioEncoder:
    """Read an audio encoder from its config.json and model.safetensors, Hugging Face's or ours.

    Args:
        folder: with the files.
        dtype: of the weights in memory.
        samples_per_frame: audio samples per video frame, which Hugging Face's config does not say.

    Raises:
        CheckpointError: a file is missing, damaged or of another network.
    """
    if "model_type" in read_json_object(folder / "config.json"):
        return hugging_face_audio_encoder(folder, dtype, samples_per_frame)
    with torch.device("meta"):
        encoder = AudioEncoder(_audio_encoder_config(folder))
    load_weights(encoder, open_checkpoint(folder, STEM), dtype)
    return encoder.eval()


def load_own_vae(folder: Path, dtype: torch.dtype) -> Vae:
    """Read a VAE of any architecture from its config.json and weights, diffusers' or ours; raises `CheckpointError`."""
    if "_class_name" in read_json_object(folder / "config.json"):
        return diffusers_vae(folder, dtype)
    config = _vae_config(folder)
    vae: LtxVae | WanVae | nn.Module
    if isinstance(config, LtxVaeConfig | WanVaeConfig):
        with torch.device("meta"):
            vae = LtxVae(config) if isinstance(config, LtxVaeConfig) else WanVae(config)
    else:
        from ..nano_vae import NanoVAE

        # Its statistics come from the config and not from the weights, so it cannot stand on the meta device.
        vae = NanoVAE(config).to(dtype)
    load_weights(vae, open_checkpoint(folder, STEM), dtype)
    return cast("Vae", vae.eval())


def save_networks(networks: Networks, folder: Path) -> None:
    """Write `networks` to `folder`, which is made if need be; `load_networks` reads them back unchanged.

    Raises:
        OutputError: the folder cannot be written.
    """
    config = vae_config(networks.vae)
    architecture = _ARCHITECTURES.get(type(config), "nano")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(networks.spec.to_json() + "\n", encoding="utf-8")
        save_network(networks.dit, config_to_dict(networks.dit.config), folder / "dit")
        save_network(
            cast("nn.Module", networks.vae), {"architecture": architecture} | config_to_dict(config), folder / "vae"
        )
        save_network(networks.audio_encoder, config_to_dict(networks.audio_encoder.config), folder / "audio_encoder")
    except OSError as error:
        raise OutputError(f"The checkpoint {folder} cannot be written ({error}); choose another folder.") from None


def save_network(network: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write one network's config.json and model.safetensors into `folder`; raises `OSError`."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / f"{STEM}.safetensors", metadata={"format": "pt"})


def _dit_config(folder: Path) -> DiTConfig:
    file = folder / "config.json"
    return config_from_dict(DiTConfig, read_json_object(file), str(file)).validate()


def _audio_encoder_config(folder: Path) -> AudioEncoderConfig:
    file = folder / "config.json"
    return config_from_dict(AudioEncoderConfig, read_json_object(file), str(file)).validate()


def _vae_config(folder: Path) -> LtxVaeConfig | WanVaeConfig | NanoVAEConfig:
    file = folder / "config.json"
    values = read_json_object(file)
    architecture = values.pop("architecture", None)
    if architecture == "ltx":
        return config_from_dict(LtxVaeConfig, values, str(file)).validate()
    if architecture == "wan":
        return config_from_dict(WanVaeConfig, values, str(file)).validate()
    if architecture == "nano":
        from ..nano_vae import NanoVAEConfig

        return config_from_dict(NanoVAEConfig, values, str(file)).validate()
    raise CheckpointError(
        f"{file} says architecture {shown(architecture)} and must say 'ltx', 'wan' or 'nano'; correct it."
    )


def read_own_spec(file: Path) -> ModelSpec:
    """Read spec.json; raises `CheckpointError`."""
    try:
        return ModelSpec.from_dict(read_json_object(file))
    except SpecError as error:
        raise CheckpointError(f"{file} is not a legal spec: {error}") from None
