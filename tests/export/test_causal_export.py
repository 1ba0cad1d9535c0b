"""A causal checkpoint becomes a bundle like any other: compared with PyTorch, played, and dialled to shorter chunks."""

from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.sessions import drain, frames_of, portrait, speech
from helpers.bundles.small import drawn
from helpers.bundles.small_causal import small_causal_networks

from rap_edge.export.exporter import ExportSettings, export_bundle
from rap_edge.export.sources.network_source import NetworkSource
from rap_edge.export.stages import Stages
from rap_edge.models.checkpoints.causal import save_causal_networks
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.precision import Precision


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_causal_checkpoint_is_exported_and_its_frames_do_not_depend_on_the_dial(
    tmp_path: Path, precision: Precision
) -> None:
    networks = small_causal_networks()
    save_causal_networks(networks, tmp_path / "checkpoint")
    source, settings = NetworkSource(tmp_path / "checkpoint"), ExportSettings(precision=precision, chunks=3)
    report = export_bundle(source, tmp_path / "bundle", settings, drawn, Stages())
    assert report.rollout is not None
    assert report.rollout["psnr"] > (80 if precision == Precision.FP32 else 45)

    def frames(latents: int) -> np.ndarray:
        picture = portrait(networks.spec)
        with (
            Avatar.open(tmp_path / "bundle", picture, new_latents=latents, threads=1) as avatar,
            avatar.session(seed=1) as session,
        ):
            session.push(speech(1.5))
            return frames_of(drain(session))

    long, short = frames(4), frames(1)
    assert long.std(0).max() > 1
    assert np.array_equal(long, short)
