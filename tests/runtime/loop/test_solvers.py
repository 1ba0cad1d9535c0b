import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from helpers.bundles.tiny import TINY, TINY_CLEAN
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.runtime.loop.carry import CleanCarry, NoisyCarry, Path
from rap_edge.runtime.loop.noise import normal
from rap_edge.runtime.loop.solvers import denoise

SHAPE = TINY.latent_shape


def noise(seed: int):
    return lambda draw: normal(SHAPE, seed, 0, draw)


def static() -> np.ndarray:
    return np.full((SHAPE[0], 1, *SHAPE[2:]), 5.0, np.float32)


def towards(target: np.ndarray, latents: np.ndarray):
    """The exact velocity field when every picture is `target`: v = (x_t - x0) / t."""
    return lambda t: (latents - target) * np.float32(1000.0 / t)


@pytest.mark.parametrize("spec", [TINY.with_steps(1), TINY.with_steps(7), TINY_CLEAN], ids=["1", "7", "renoise"])
def test_the_exact_velocity_leads_to_the_target(spec) -> None:
    latents = np.zeros(SHAPE, np.float32)
    target = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    carry = NoisyCarry(spec.carried_latents, static()) if spec.carry == "noisy" else CleanCarry(static())
    denoise(latents, spec.schedule(), spec.solver, carry, noise(1), towards(target, latents))
    np.testing.assert_allclose(latents[:, 1:], target[:, 1:], atol=1e-4)
    np.testing.assert_allclose(latents[:, :1], 5.0)


def test_euler_follows_a_straight_path_level_by_level() -> None:
    spec = TINY.with_steps(4)
    latents, target, seen = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32), []
    field = towards(target, latents)

    def watched(t: float) -> np.ndarray:
        seen.append((t, latents[:, 2:].copy()))
        return field(t)

    denoise(latents, spec.schedule(), "euler", NoisyCarry(spec.carried_latents, static()), noise(1), watched)
    start = noise(1)(0)[:, 2:]
    for t, x in seen:
        np.testing.assert_allclose(x, (1 - t / 1000) * 1.0 + t / 1000 * start, atol=1e-5)


def test_noisy_carry_hands_over_the_last_latents_at_every_level() -> None:
    spec, latents, levels = TINY.with_steps(3), np.zeros(SHAPE, np.float32), []
    carry = NoisyCarry(spec.carried_latents, static())

    def velocity(t: float) -> np.ndarray:
        levels.append(latents.copy())
        return latents - 1

    for chunk in range(2):
        denoise(latents, spec.schedule(), "euler", carry, noise(chunk), velocity)
        levels.append(latents.copy())
    n = spec.carried_latents
    first, second = levels[:4], levels[4:]
    for before, after in zip(first, second, strict=True):
        assert np.array_equal(before[:, -n:], after[:, :n])
    assert not np.array_equal(first[1][:, -n:], first[0][:, -n:])


def test_the_first_chunk_starts_from_the_static_latent_noised_to_each_level() -> None:
    spec, latents, seen = TINY.with_steps(2), np.zeros(SHAPE, np.float32), []
    denoise(
        latents,
        spec.schedule(),
        "euler",
        NoisyCarry(spec.carried_latents, static()),
        noise(3),
        lambda t: seen.append((t / 1000, latents[:, :1].copy())) or np.zeros_like(latents),
    )
    for t, x in seen:
        np.testing.assert_allclose(x, (1 - t) * 5.0 + t * noise(3)(0)[:, :1], atol=1e-6)


def test_clean_carry_overwrites_every_level_by_one_latent_first_and_n_after() -> None:
    spec, latents, seen = dataclasses.replace(TINY_CLEAN), np.zeros(SHAPE, np.float32), []
    carry = CleanCarry(static())

    def velocity(t: float) -> np.ndarray:
        seen.append(latents.copy())
        return np.ones_like(latents)

    denoise(latents, spec.schedule(), "renoise", carry, noise(0), velocity)
    assert all(np.all(x[:, :1] == 5.0) and not np.any(x[:, 1:] == 5.0) for x in seen)
    carry.advance(np.full((SHAPE[0], 2, *SHAPE[2:]), 6.0, np.float32))
    seen.clear()
    denoise(latents, spec.schedule(), "renoise", carry, noise(0), velocity)
    assert all(np.all(x[:, :2] == 6.0) and not np.any(x[:, 2:] == 6.0) for x in [*seen, latents])


levels = st.lists(st.floats(1.0, 999.0), max_size=6, unique=True).map(lambda found: (1000.0, *sorted(found)[::-1], 0.0))


@given(levels, levels, st.integers(0, 2**32 - 1))
def test_a_chunk_with_other_levels_is_given_the_straight_path_between_the_old_ones(old, new, seed: int) -> None:
    """Euler's path, taken step by step with any velocities, and asked for at the levels of another schedule."""
    rng = np.random.default_rng(seed)
    shape, n = (1, 3, 2, 2), 2
    velocities = rng.standard_normal((len(old), *shape)).astype(np.float32)
    carry, latents = NoisyCarry(n, np.zeros((1, 1, 2, 2), np.float32)), np.zeros(shape, np.float32)
    steps = iter(velocities)
    start = rng.standard_normal(shape).astype(np.float32)
    denoise(latents, old, "euler", carry, lambda draw: start, lambda t: next(steps))

    def on_the_path(t: float) -> np.ndarray:
        """What a solver that stopped at t would have held: whole steps down to the level above t, then a part."""
        x = start.astype(np.float64).copy()
        for (high, low), velocity in zip(pairwise(old), velocities, strict=False):
            x += (max(low, t) - high) / 1000 * velocity if t < high else 0.0
        return x[:, -n:]

    past = carry.past
    assert isinstance(past, Path)
    for t in new:
        np.testing.assert_allclose(past.at(t), on_the_path(t), atol=1e-4)
    seen = []
    denoise(latents, new, "euler", carry, lambda d: start, lambda t: seen.append(latents.copy()) or velocities[0])
    for t, x in zip(new, [*seen, latents], strict=True):
        np.testing.assert_allclose(x[:, :n], on_the_path(t), atol=1e-4)


def test_the_same_levels_are_handed_over_bit_for_bit() -> None:
    path = Path((1000.0, 400.0, 0.0), np.random.default_rng(0).standard_normal((3, 2, 2, 1, 1)).astype(np.float32))
    assert all(
        path.at(t) is not None and np.array_equal(path.at(t), path.latents[i]) for i, t in enumerate(path.levels)
    )
