"""The graphs of a causal model: the runtime's loop over them gives what the networks give in PyTorch."""

import numpy as np
import pytest
import torch
from helpers.bundles.graph_runs import plain_session
from helpers.bundles.sessions import portrait, speech
from helpers.bundles.small_causal import small_causal_networks

from rap_edge.export.capture.five_graphs import capture, graph_sources
from rap_edge.export.capture.torch_engine import torch_engines
from rap_edge.models.causal.networks import CausalNetworks
from rap_edge.models.nano.training.stream import Stream
from rap_edge.runtime.loop.causal_loop import CausalLoop
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.noise import normal
from rap_edge.runtime.session.sample_buffer import SampleBuffer


@pytest.fixture(scope="module")
def networks() -> CausalNetworks:
    return small_causal_networks()


def test_the_loop_gives_the_frames_of_the_networks_own_stream(networks: CausalNetworks) -> None:
    spec, engines = networks.spec, torch_engines(networks)
    picture, sound, seed = portrait(spec), speech(1.4), 5

    def noise(latent: int) -> torch.Tensor:
        return torch.from_numpy(normal((spec.latent_channels, 1, 1, 1), seed, latent, 0))[None]

    levels = tuple(t / 1000 for t in spec.schedule())
    stream = Stream(networks.decoder, networks.dit, networks.audio_encoder, picture, noise, levels)
    whole = sound[: len(sound) // spec.samples_per_frame * spec.samples_per_frame]
    expected = stream.push(whole)
    loop = CausalLoop(engines, spec, encode_reference(spec, engines["vae_encoder"], picture), seed)
    buffer, found = SampleBuffer(spec.window_samples), []
    buffer.append(sound)
    for index in range(len(expected) // spec.new_frames):
        buffer.read(*spec.window_of(index), loop.waveform)
        found.append(loop.render(spec.steps)[0])
    frames = np.concatenate(found)
    apart = np.abs(frames.astype(int) - expected[: len(frames)])
    assert len(frames) == 32
    assert expected.std(0).max() > 1  # something moves
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01


@pytest.mark.parametrize("name", ["audio_encoder", "conditioner", "dit", "vae_encoder", "vae_decoder"])
def test_a_graph_computes_what_its_network_does(networks: CausalNetworks, name: str) -> None:
    source = graph_sources(networks)[name]
    session = plain_session(capture(source, networks.spec))
    rng = np.random.default_rng(0)
    feeds = {
        t.name: (rng.integers(0, 256, t.shape) if t.dtype == "uint8" else rng.standard_normal(t.shape)).astype(t.dtype)
        for t in source.inputs
    }
    if "past_known" in feeds:
        feeds["past_known"][:] = [0, 1, 1]
        feeds["timestep"][:] = 375
    with torch.no_grad():
        expected = source.module(*(torch.from_numpy(feeds[t.name]) for t in source.inputs))
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    found = session.run(None, feeds)
    assert [t.name for t in source.outputs] == [output.name for output in session.get_outputs()]
    for got, wanted in zip(found, expected, strict=True):
        tolerance = 1 if got.dtype == np.uint8 else 1e-5 * max(1.0, float(wanted.abs().max()))
        assert np.abs(got.astype(np.float64) - wanted.numpy()).max() <= tolerance
