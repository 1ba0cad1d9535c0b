"""Models whose frames are not square are exported like the others."""

import dataclasses
from pathlib import Path

import pytest
from helpers.bundles.small import LTX, NANO, SMALL, SMALL_CLEAN, drawn, small_networks

from rap_edge.export.exporter import ExportSettings, export_bundle
from rap_edge.export.sources.network_source import NetworkSource
from rap_edge.export.stages import Stages
from rap_edge.models.checkpoints.own import save_networks
from rap_edge.models.nano_vae import NanoVAEConfig
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.spec import ModelSpec


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "vae"), [(SMALL, NANO), (SMALL_CLEAN, LTX)], ids=["noisy", "clean"])
def test_wide_frames_go_from_checkpoint_to_bundle(
    tmp_path: Path, spec: ModelSpec, vae: NanoVAEConfig | LtxVaeConfig
) -> None:
    wide = dataclasses.replace(spec, image_size=(64, 96)).validate()
    save_networks(small_networks(wide, vae), tmp_path / "checkpoint")
    settings = ExportSettings(chunks=3)
    source = NetworkSource(tmp_path / "checkpoint")
    report = export_bundle(source, tmp_path / "bundle", settings, drawn, Stages())
    assert report.rollout is not None
    assert report.rollout["psnr"] > 60
    frames = Bundle.open(tmp_path / "bundle").manifest.graphs["vae_decoder"].outputs[0]
    assert frames.shape[1:] == (64, 96, 3)
