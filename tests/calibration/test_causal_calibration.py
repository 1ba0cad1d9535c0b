"""rap-calibrate on a causal bundle: int8 between caches that stay floating point, with any length of chunks."""

import dataclasses
import io

import numpy as np
import pytest
from helpers.bundles.exports import export
from helpers.bundles.fixed_times import fix_times
from helpers.bundles.sessions import drain, frames_of, portrait, speech
from helpers.bundles.small_causal import small_causal_networks

from rap_edge.calibration.calibrator import Request, calibrate
from rap_edge.calibration.judge.gates import Gates
from rap_edge.calibration.record.clips import Amounts
from rap_edge.calibration.steps.context import Settings
from rap_edge.export.parity.check_inputs import to_int16
from rap_edge.export.stages import Stages
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.bundle import Bundle
from rap_edge.runtime.bundle.contract import check_contract
from rap_edge.runtime.outputs.wave_file import write_wave


@pytest.mark.slow
def test_a_causal_bundle_in_int8_gives_the_same_frames_at_every_latency(tmp_path, monkeypatch) -> None:
    networks = small_causal_networks()
    spec = networks.spec
    export(networks, tmp_path / "fp32", compared=False)
    write_wave(tmp_path / "speech.wav", to_int16(speech(3.0)), spec.sample_rate)
    fix_times(monkeypatch, slower=("conditioner", "vae_decoder"))
    seconds = 3 * spec.chunk_seconds
    settings = Settings(
        amounts=Amounts(1, 1, seconds, seconds, 2 * seconds),
        gates=Gates(psnr=30.0, ssim=0.9, mouth_loss=2.0, drift=60.0, speedup=0.0),
        sensitivity_chunks=1,
        race_chunks=1,
        threads=1,
    )
    request = Request(tmp_path / "fp32", output=tmp_path / "int8", audio=tmp_path / "speech.wav")
    done = calibrate(request, settings, Stages(io.StringIO()))
    assert {entry.graph for entry in done.ledger if entry.decision == "int8"} == {"audio_encoder", "dit"}
    # Caches included: every input and output is as it was.
    before, after = (Bundle.open(tmp_path / name).manifest for name in ("fp32", "int8"))
    check_contract(after)
    for name, graph in after.graphs.items():
        assert dataclasses.replace(graph, flops=None) == dataclasses.replace(before.graphs[name], flops=None)

    def frames(latents: int) -> np.ndarray:
        with (
            Avatar.open(tmp_path / "int8", portrait(spec), new_latents=latents, threads=1) as avatar,
            avatar.session(seed=1) as session,
        ):
            session.push(speech(1.5))
            return frames_of(drain(session))

    long, short = frames(4), frames(1)
    assert long.std(0).max() > 1
    assert np.array_equal(long, short)
