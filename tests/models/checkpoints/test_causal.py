"""Causal checkpoints are read as they were written, and what does not fit is named."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from helpers.bundles.small_causal import small_causal_networks

from rap_edge.models import load_networks
from rap_edge.models.causal.networks import CausalNetworks
from rap_edge.models.checkpoints.causal import save_causal_networks
from rap_edge.runtime.errors import CheckpointError


def test_networks_come_back_as_they_were_saved(tmp_path: Path) -> None:
    networks = small_causal_networks()
    save_causal_networks(networks, tmp_path / "model")
    found = load_networks(tmp_path / "model")
    assert isinstance(found, CausalNetworks)
    assert found.spec == networks.spec
    for module, other in zip(networks.modules, found.modules, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])


def test_a_spec_of_other_sizes_is_refused(tmp_path: Path) -> None:
    networks = small_causal_networks()
    save_causal_networks(networks, tmp_path)
    other = dataclasses.replace(networks.spec, caches=dataclasses.replace(networks.spec.caches, past_latents=9))
    with pytest.raises(CheckpointError, match="networks' past"):
        load_networks(tmp_path, other)


@pytest.mark.parametrize("folder", ["dit", "vae", "audio_encoder"])
def test_a_config_that_is_another_networks_is_refused(tmp_path: Path, folder: str) -> None:
    save_causal_networks(small_causal_networks(), tmp_path)
    file = tmp_path / folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ffn": 3}))
    with pytest.raises(CheckpointError, match="'ffn' is unknown"):
        load_networks(tmp_path)
