"""Streams over the tiny model in a simulated clock: whatever is to be rendered has been when the next frame is due."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from helpers.bundles.sessions import portrait
from helpers.bundles.tiny import TINY, Body, tiny_engines
from helpers.bundles.tiny_causal import causal_engines

from rap_edge.runtime.loop.interface import Loop, encode_reference
from rap_edge.runtime.loop.on_host import host_loop
from rap_edge.runtime.session.idle_reel import IdleReel
from rap_edge.runtime.session.overload import Overload
from rap_edge.runtime.session.stream_core import StreamCore, StreamFrame
from rap_edge.runtime.spec import ModelSpec

LIVELY = dataclasses.replace(TINY, name="lively", idle_replays=1)
RATE = LIVELY.sample_rate


class SimulatedStream:
    """A stream's rules and the one who renders, in one thread."""

    def __init__(
        self, spec=LIVELY, rate: int = RATE, seed: int = 0, reel_chunks: int = 3, loop: Loop | None = None, **bodies
    ) -> None:
        self.spec, self.loop = spec, loop or _loop(spec, seed, bodies)
        self.core = StreamCore(spec, rate, IdleReel(portrait(spec), spec.new_frames, reel_chunks), Overload())
        self.rate, self.renders = rate, 0

    def say(self, pcm: np.ndarray, rate: int | None = None, end: bool = True) -> None:
        self.core.push(pcm, self.rate if rate is None else rate)
        if end:
            self.core.end_utterance()

    def render(self) -> None:
        """Render everything that is to be."""
        while (job := self.core.next_job()) is not None:
            self.loop.restore(job.state)
            self.loop.waveform[...] = job.waveform
            frames, _ = self.loop.render(job.rung.steps, job.rung.frame_step)
            self.core.rendered(job, frames, self.loop.state, 0.0)
            self.renders += 1

    def frames(self, count: int) -> list[StreamFrame]:
        given = []
        for _ in range(count):
            self.render()
            given.append(self.core.next_frame())
        return given


def _loop(spec: ModelSpec, seed: int, bodies: Mapping[str, Body]) -> Loop:
    engines = (tiny_engines if spec.caches is None else causal_engines)(spec, **bodies)
    return host_loop(engines, spec, encode_reference(spec, engines["vae_encoder"], portrait(spec)), seed)


def heard(frames: list[StreamFrame]) -> np.ndarray:
    return np.concatenate([frame.sound for frame in frames])


def seen(frames: list[StreamFrame]) -> np.ndarray:
    return np.stack([frame.picture for frame in frames])


def events(frames: list[StreamFrame]) -> list:
    return [event for frame in frames for event in frame.events]
