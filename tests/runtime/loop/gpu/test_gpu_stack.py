"""Everything between `rap-run --engine dit.plan` and the frames, over a stand-in for driver and TensorRT.

The plans are the bundle's own ONNX graphs in ONNX Runtime, and the kernels' source is compiled for the CPU.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles.planned import folder
from helpers.gpu.emulated_driver import driver, gpu_driver
from helpers.gpu.emulated_kernels import kernels
from helpers.media.waves import speech, write_wav

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.cli import run as cli

__all__ = ["driver", "folder", "gpu_driver", "kernels"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels are compiled by g++, which is missing")


def rendered(bundle: Path, **options) -> tuple[list[np.ndarray], Avatar]:
    with Avatar.open(bundle, threads=1, **options) as avatar, avatar.session(seed=5) as session:
        session.push(speech(4.0, avatar.spec.sample_rate))
        session.finish()
        return [chunk.frames for chunk in session.chunks()], avatar


def test_plans_give_the_frames_of_onnx_runtime_from_one_graph_per_chunk(folder, driver) -> None:
    plans, avatar = rendered(folder, engine="tensorrt-rtx")
    graphs, _ = rendered(folder)
    assert avatar.engine == "tensorrt-rtx 1.7.1.116"
    assert len(plans) == len(graphs) > 3
    # One more is the rehearsal's.
    assert driver.calls.count("cuGraphLaunch") == len(plans) + 1
    for plan, graph in zip(plans, graphs, strict=True):
        assert np.abs(plan.astype(int) - graph).max() <= 1


def test_chunks_carry_their_frames_on_the_device(folder, driver) -> None:
    with Avatar.open(folder, engine="dit.plan") as avatar, avatar.session() as session:
        session.push(speech(1.0, avatar.spec.sample_rate))
        session.finish()
        chunks = list(session.chunks())
    for chunk in chunks:
        assert chunk.on_device.shape == chunk.frames.shape
        assert chunk.on_device.__cuda_array_interface__["shape"] == chunk.frames.shape


def test_rap_run_reports_the_stages_of_the_gpu(folder, driver, tmp_path, capsys) -> None:
    audio = write_wav(str(tmp_path / "talk.wav"), speech(3.0))
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    run = ["--engine", str(folder / "dit.plan"), "--audio", audio, "-o", str(out), "--report", str(report)]
    assert cli.main(run) == 0
    figures = json.loads(report.read_text())
    assert figures["engine"] == "tensorrt-rtx 1.7.1.116"
    assert figures["device"] == "RTX 4090"
    assert figures["warnings"] == []
    assert {"audio_encoder", "conditioner", "denoise", "vae_decoder"} < set(figures["stages"])


def test_a_gpu_that_is_lost_in_mid_stream_is_replaced_where_a_fallback_was_asked_for(folder, driver) -> None:
    expected, _ = rendered(folder)
    with Avatar.open(folder, engine="dit.plan", fallback=True, threads=1) as avatar, avatar.session(seed=5) as session:
        session.push(speech(4.0, avatar.spec.sample_rate))
        session.finish()
        frames = []
        for chunk in session.chunks():
            frames.append(chunk.frames)
            driver.fail_at = "cuGraphLaunch" if len(frames) >= 2 else ""
        (note,) = session.notes
    assert note.startswith("Fell back to ONNX Runtime on the CPU at chunk 2: The GPU failed in cuGraphLaunch")
    assert len(frames) == len(expected)
    for got, wanted in zip(frames, expected, strict=True):
        assert np.abs(got.astype(int) - wanted).max() <= 1
