"""A causal model's stream on a stand-in for a GPU: idle motion, interrupts and late sound as on the processor."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from helpers.bundles.sessions import portrait, speech
from helpers.bundles.streams import SimulatedStream, events, seen
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines
from helpers.gpu.emulated_kernels import kernels
from helpers.gpu.planned_gpu import PlannedGpu

from rap_edge.runtime.errors import NumericalError

__all__ = ["kernels"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the kernels are compiled by g++, which is missing")
LIVELY = dataclasses.replace(TINY_CAUSAL, idle_replays=1)


def gpu_of(kernels, **bodies) -> PlannedGpu:
    return PlannedGpu(kernels, LIVELY, causal_engines(LIVELY, **bodies), portrait(LIVELY))


def long_memory(buffers) -> None:
    """An audio encoder that forgets sound as slowly as echoes die away."""
    echo = buffers["past_audio"][0, 0]
    for frame, loudness in enumerate(np.abs(buffers["waveform"][0]).reshape(LIVELY.temporal_compression, -1).mean(1)):
        echo = 0.8 * echo + loudness
        buffers["audio_features"][frame] = echo
    buffers["next_audio"][...] = echo


def conversation(stream: SimulatedStream) -> list:
    """Silence, an utterance that is interrupted, one that follows at once, one that comes late, and silence."""
    frames = stream.frames(40)
    stream.say(speech(1.6, 1))
    frames += stream.frames(18)
    stream.core.interrupt()
    stream.say(speech(0.7, 2))
    frames += stream.frames(30)
    stream.say(speech(0.7, 3))
    return frames + stream.frames(60)


def test_a_conversation_has_the_frames_of_the_processor(kernels) -> None:
    gpu = gpu_of(kernels, audio_encoder=long_memory)
    found, expected = (conversation(SimulatedStream(LIVELY, loop=loop)) for loop in (gpu.loop(0), gpu.oracle(0)))
    assert "cuGraphLaunch" in gpu.driver.calls
    assert events(found) == events(expected)
    pictures = seen(found)
    assert np.abs(pictures.astype(int) - seen(expected)).max() <= 1
    assert pictures.std(0).max() > 5


def test_the_past_is_uploaded_only_where_it_is_not_there(kernels) -> None:
    gpu = gpu_of(kernels)
    loop = gpu.loop()

    def uploads() -> int:
        gpu.driver.calls.clear()
        loop.render(LIVELY.steps)
        return gpu.driver.calls.count("cuMemcpyHtoDAsync")

    loop.render(LIVELY.steps)
    assert uploads() == 0
    loop.restore(loop.state.elsewhere())
    # The caches of two networks, and the sound that is heard anew.
    assert uploads() == 5
    assert uploads() == 0


def test_a_portrait_for_which_a_network_gives_nan_opens_no_session(kernels) -> None:
    broken = False
    healthy = causal_engines(LIVELY)["vae_decoder"]._body

    def body(buffers) -> None:
        healthy(buffers)
        if broken:
            buffers["magnitude"][...] = np.nan

    gpu = gpu_of(kernels, vae_decoder=body)
    broken = True
    with pytest.raises(NumericalError, match="vae_decoder"):
        gpu.loop()
