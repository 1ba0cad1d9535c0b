"""Solvers of the flow ODE and the denoise loop of one chunk.

In: a schedule, noise, the carried latents per level, a velocity function. Out: the chunk's clean latents.
The velocity is `noise - x0` and level t in 0..1000 is `(1 - t/1000) x0 + t/1000 noise` (flow matching).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..spec import ModelSpec, Solver, unknown
from .carry import Carry

Latents = NDArray[np.float32]
Noise = Callable[[int], Latents]
Velocity = Callable[[float], Latents]
Step = Callable[[Latents, Latents, float, float, Callable[[], Latents]], None]


def schedule_of(spec: ModelSpec, steps: int) -> tuple[float, ...]:
    """Shifted timesteps of a chunk with `steps` steps; the spec's own number takes the spec's own timesteps."""
    return spec.schedule() if steps == spec.steps else spec.with_steps(steps).schedule()


def euler_step(latents: Latents, velocity: Latents, t: float, t_next: float, noise: Callable[[], Latents]) -> None:
    """Move `latents` in place from level t to t_next along the velocity (RAP; Euler's method)."""
    latents += np.float32((t_next - t) / 1000.0) * velocity


def renoise_step(latents: Latents, velocity: Latents, t: float, t_next: float, noise: Callable[[], Latents]) -> None:
    """Predict the clean latents and add fresh noise of level t_next, in place (FlashHead's distilled sampler)."""
    latents -= np.float32(t / 1000.0) * velocity
    if t_next > 0.0:
        latents *= np.float32(1.0 - t_next / 1000.0)
        latents += np.float32(t_next / 1000.0) * noise()


def step_of(solver: Solver) -> Step:
    """The step that a spec's solver takes; raises `SpecError` if there is no such one."""
    match solver:
        case "euler":
            return euler_step
        case "renoise":
            return renoise_step
        case other:
            raise unknown("solver", other)


def denoise(
    latents: Latents,
    schedule: tuple[float, ...],
    solver: Solver,
    carry: Carry,
    noise: Noise,
    velocity: Velocity,
) -> None:
    """Denoise one chunk in place.

    Args:
        latents: [C, k, h, w] float32, the buffer that `velocity` reads; overwritten.
        schedule: shifted timesteps from 1000 down to 0, one more than there are steps.
        solver: of the spec.
        carry: gives the latents that overwrite the chunk's first ones before every step and after the last, and
            is shown every level.
        noise: `noise(draw)` is standard normal [C, k, h, w]; draw 0 starts the chunk.
        velocity: `velocity(t)` evaluates the network on `latents`; its result is read before the next call.

    Raises:
        SpecError: there is no such solver.
    """
    step = step_of(solver)
    initial = noise(0)
    latents[...] = initial
    carry.begin(schedule, initial)
    for level, (t, t_next) in enumerate(pairwise(schedule)):
        carry.place(level, latents)
        step(latents, velocity(t), t, t_next, partial(noise, level + 1))
    carry.place(len(schedule) - 1, latents)
