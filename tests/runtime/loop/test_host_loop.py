"""The chunk loop on the CPU: where it stands, also after a chunk that failed or is taken back."""

import dataclasses

import numpy as np
import pytest
from helpers.bundles.sessions import mixing_field, portrait
from helpers.bundles.tiny import TINY, TINY_CLEAN, TINY_PRO, Body, tiny_engines

from rap_edge.runtime.errors import EngineError, SpecError
from rap_edge.runtime.loop.host_loop import ChunkLoop
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.solvers import step_of
from rap_edge.runtime.spec import ModelSpec

SPECS = [TINY, TINY_CLEAN, TINY_PRO]


def loop_of(spec: ModelSpec, **bodies: Body) -> ChunkLoop:
    reference = encode_reference(spec, tiny_engines(spec)["vae_encoder"], portrait(spec))
    return ChunkLoop(tiny_engines(spec, **{"dit": mixing_field} | bodies), spec, reference, 3)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_chunk_that_is_taken_back_is_rendered_again_bit_for_bit(spec: ModelSpec) -> None:
    loop = loop_of(spec)
    loop.render(spec.steps)
    before = loop.state
    frames = loop.render(spec.steps)[0]
    assert loop.state.index == 2
    loop.restore(before)
    assert np.array_equal(loop.render(spec.steps)[0], frames)
    loop.restore(before.after(None))
    assert not np.array_equal(loop.render(spec.steps)[0], frames)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("stage", ["audio_encoder", "dit", "vae_decoder", "vae_encoder"])
def test_a_chunk_that_fails_leaves_nothing_behind(spec: ModelSpec, stage: str) -> None:
    if stage == "vae_encoder" and spec.carry == "noisy":
        pytest.skip("encodes nothing again")
    body, failing = mixing_field if stage == "dit" else tiny_engines(spec)[stage]._body, False

    def breakable(b) -> None:
        body(b)
        if failing:
            raise EngineError("lost")

    loop, oracle = loop_of(spec, **{stage: breakable}), loop_of(spec)
    loop.render(spec.steps)
    oracle.render(spec.steps)
    before, failing = loop.state, True
    with pytest.raises(EngineError):
        loop.render(spec.steps)
    assert loop.state is before
    failing = False
    assert np.array_equal(loop.render(spec.steps)[0], oracle.render(spec.steps)[0])


def test_the_network_is_told_rounded_timesteps_and_the_solver_is_not() -> None:
    told: dict[str, list[float]] = {}
    for dtype in ("float32", "bfloat16"):
        spec = dataclasses.replace(TINY_CLEAN, timesteps=(1000.0, 750.0, 0.0), shift=5.0, timestep_dtype=dtype)
        heard = told.setdefault(dtype, [])

        def dit(b, heard=heard) -> None:
            heard.append(float(b["timestep"][0]))
            b["velocity"][...] = 0.0

        loop_of(spec, dit=dit).render(spec.steps)
    assert told == {"float32": [1000.0, 937.5], "bfloat16": [1000.0, 936.0]}


def test_an_unknown_solver_or_carry_is_an_error() -> None:
    with pytest.raises(SpecError, match="solver 'heun' is unknown"):
        step_of("heun")
    with pytest.raises(SpecError, match="carry 'none' is unknown"):
        loop_of(dataclasses.replace(TINY, carry="none"))
