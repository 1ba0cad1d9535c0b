"""The checkpoint layout of rap-edge itself for causal models: the same folders as `own`, other networks in them."""

from __future__ import annotations

from pathlib import Path

import torch

from rap_edge.runtime.errors import OutputError
from rap_edge.runtime.spec import ModelSpec

from ..causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder
from ..causal.dit import CausalDiT, CausalDiTConfig
from ..causal.motion_decoder import MotionDecoder, MotionDecoderConfig
from ..causal.networks import CausalNetworks, check_causal_agreement
from ..config import C, config_from_dict, config_to_dict, read_json_object
from ..memory import Network
from .own import STEM, save_network
from .tensors import load_weights, open_checkpoint


def load_causal_networks(folder: Path, spec: ModelSpec, dtype: torch.dtype) -> CausalNetworks:
    """Read what `save_causal_networks` wrote, for `spec`.

    Raises:
        CheckpointError: a file is missing or damaged, or the networks do not agree with the spec.
    """
    # Their constants come from the configs and not from the weights, so they cannot stand on the meta device.
    return check_causal_agreement(
        CausalNetworks(
            spec,
            _loaded(CausalDiT(_config(CausalDiTConfig, folder / "dit")), folder / "dit", dtype),
            _loaded(MotionDecoder(_config(MotionDecoderConfig, folder / "vae")), folder / "vae", dtype),
            _loaded(
                CausalAudioEncoder(_config(CausalAudioConfig, folder / "audio_encoder")),
                folder / "audio_encoder",
                dtype,
            ),
        )
    )


def _config(cls: type[C], folder: Path) -> C:
    file = folder / "config.json"
    return config_from_dict(cls, read_json_object(file), str(file))


def _loaded(network: Network, folder: Path, dtype: torch.dtype) -> Network:
    load_weights(network.to(dtype), open_checkpoint(folder, STEM), dtype)
    return network.eval()


def save_causal_networks(networks: CausalNetworks, folder: Path) -> None:
    """Write `networks` to `folder`, which is made if need be; `load_networks` reads them back unchanged.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text(networks.spec.to_json() + "\n", encoding="utf-8")
        for name, network in (
            ("dit", networks.dit),
            ("vae", networks.decoder),
            ("audio_encoder", networks.audio_encoder),
        ):
            save_network(network, config_to_dict(network.config), folder / name)
    except OSError as error:
        raise OutputError(f"The checkpoint {folder} cannot be written ({error}); choose another folder.") from None
