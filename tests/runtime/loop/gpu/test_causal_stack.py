"""A causal bundle's plans on a stand-in for a GPU, from its graphs to the frames of a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.exports import export
from helpers.bundles.planned import add_plans
from helpers.bundles.sessions import drain, frames_of, portrait, speech
from helpers.bundles.small_causal import small_causal_networks
from helpers.gpu.emulated_driver import driver, gpu_driver
from helpers.gpu.emulated_kernels import kernels

from rap_edge.runtime.avatar import Avatar

__all__ = ["driver", "gpu_driver", "kernels"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels are compiled by g++, which is missing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export(small_causal_networks(), tmp_path / "bundle", compared=False)
    return add_plans(tmp_path / "bundle")


@pytest.mark.slow
def test_plans_of_a_causal_bundle_give_the_frames_of_onnx_runtime_at_every_latency(folder, driver) -> None:
    def frames(latents: int, engine: str | None) -> np.ndarray:
        picture = portrait(small_causal_networks().spec)
        with (
            Avatar.open(folder, picture, engine=engine, new_latents=latents, threads=1) as avatar,
            avatar.session(seed=1) as session,
        ):
            session.push(speech(1.5))
            return frames_of(drain(session))

    expected = frames(4, None)
    assert expected.std(0).max() > 1
    for latents in (4, 1):
        driver.calls.clear()
        found = frames(latents, "tensorrt-rtx")
        # One more is the rehearsal's.
        assert driver.calls.count("cuGraphLaunch") == -(-len(expected) // (4 * latents)) + 1
        assert np.abs(found.astype(int) - expected).max() <= 1
