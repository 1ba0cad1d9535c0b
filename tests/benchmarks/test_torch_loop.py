"""The PyTorch loop that GPU benchmarks compare with computes what the runtime's loop computes."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.bundles.small import NANO, SMALL, SMALL_CLEAN, SMALL_GUIDED, small_networks
from torch_loop import TorchLoop

from rap_edge.export.capture.torch_engine import torch_engines
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.noise import normal


@pytest.mark.parametrize(
    "spec", [SMALL, dataclasses.replace(SMALL_CLEAN, color_match=0.0), SMALL_GUIDED], ids=lambda spec: spec.name
)
def test_it_gives_the_frames_of_the_runtimes_loop(spec) -> None:
    networks = small_networks(spec, NANO)
    rng = np.random.default_rng(0)
    portrait = rng.integers(0, 256, (*spec.image_size, 3), np.uint8)
    engines = torch_engines(networks)
    oracle = ChunkLoop(engines, spec, encode_reference(spec, engines["vae_encoder"], portrait), seed=5)
    loop = TorchLoop(
        networks,
        portrait,
        torch.device("cpu"),
        noise=lambda chunk, draw: torch.from_numpy(normal(spec.latent_shape, 5, chunk, draw)),
    )
    for _ in range(3):
        waveform = rng.uniform(-0.5, 0.5, spec.window_samples).astype(np.float32)
        oracle.waveform[...] = waveform
        expected, stages = oracle.render(spec.steps)
        frames, seconds = loop.render(waveform)
        assert np.abs(frames.astype(int) - expected).max() <= 1
        assert list(seconds) == list(stages)


def test_half_precision_is_near() -> None:
    portrait = np.full((*SMALL.image_size, 3), 90, np.uint8)
    waveform = np.random.default_rng(1).uniform(-0.5, 0.5, SMALL.window_samples).astype(np.float32)
    noise = torch.randn(SMALL.latent_shape)
    frames = []
    for dtype in (torch.float32, torch.float16):
        networks = small_networks(SMALL, NANO)
        for network in (networks.dit, networks.vae, networks.audio_encoder):
            network.to(dtype)
        loop = TorchLoop(networks, portrait, torch.device("cpu"), noise=lambda chunk, draw: noise)
        frames.append(loop.render(waveform)[0].astype(int))
    assert np.abs(frames[0] - frames[1]).mean() < 2
