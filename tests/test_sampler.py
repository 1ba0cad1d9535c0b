import dataclasses

import numpy as np
import pytest
from tiny import TINY, TINY_CLEAN

from rap_edge.runtime.carry import CleanCarry, NoisyCarry
from rap_edge.runtime.noise import normal
from rap_edge.runtime.sampler import denoise

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
    carry = NoisyCarry(spec, static()) if spec.carry == "noisy" else CleanCarry(static())
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

    denoise(latents, spec.schedule(), "euler", NoisyCarry(spec, static()), noise(1), watched)
    start = noise(1)(0)[:, 2:]
    for t, x in seen:
        np.testing.assert_allclose(x, (1 - t / 1000) * 1.0 + t / 1000 * start, atol=1e-5)


def test_noisy_carry_hands_over_the_last_latents_at_every_level() -> None:
    spec, latents, levels = TINY.with_steps(3), np.zeros(SHAPE, np.float32), []
    carry = NoisyCarry(spec, static())

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
        NoisyCarry(spec, static()),
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
