"""A training stage of nano on its way, and what it keeps between runs: weights, their average and the optimiser.

The step counts, not the time: a stage that is paused, killed or slowed down goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import TrainingError
from .optim import Muon
from .stage import Journal, save_tensors


@dataclass(frozen=True)
class Schedule:
    """Step size over a stage: a linear rise, a plateau and a linear fall to 1 %.

    Attributes:
        steps: of the stage.
        rise: steps of the rise.
        fall: share of the steps that fall.
    """

    steps: int
    rise: int = 100
    fall: float = 0.3

    def factor(self, step: int) -> float:
        """Step size in 0..1 at `step`."""
        left = max(0.0, 1.0 - step / self.steps)
        return min(1.0, (step + 1) / self.rise) * max(0.01, min(1.0, left / self.fall))


class Average:
    """The running average of a network's weights: what is measured and what ships.

    Args:
        model: whose weights are averaged.
        decay: share that stays at every step, less at the beginning.
    """

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def take(self, model: nn.Module, step: int) -> None:
        """Move towards the weights that `model` has after `step`."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            self.weights[name].lerp_(value, share)

    def into(self, model: nn.Module) -> dict[str, Tensor]:
        """Give `model` the average; its own weights, to be loaded again after measuring."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        return own


def save_state(folder: Path, model: nn.Module, average: Average, optimiser: Muon) -> None:
    """Write a stage's state into `folder`; a run that is killed meanwhile leaves the state before."""
    state = {f"model/{name}": value for name, value in model.state_dict().items()}
    state |= {f"average/{name}": value for name, value in average.weights.items()}
    state |= {f"optim/{name}": value for name, value in optimiser.tensors().items()}
    save_tensors(folder, state)


def load_state(folder: Path, model: nn.Module, average: Average, optimiser: Muon) -> int:
    """Take back what `save_state` wrote; the steps made so far, 0 if there is no state."""
    file = folder / "state.safetensors"
    if not file.exists():
        return 0
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optim": {}}
    for name, value in load_file(file).items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    model.load_state_dict(parts["model"])
    for name, value in parts["average"].items():
        average.weights[name].copy_(value)
    optimiser.load_tensors(parts["optim"])
    return optimiser.step_count


def load_average(folder: Path, model: nn.Module) -> bool:
    """Give `model` the averaged weights of a stage; False if the stage has not begun."""
    file = folder / "state.safetensors"
    if not file.exists():
        return False
    prefix = "average/"
    model.load_state_dict({k.removeprefix(prefix): v for k, v in load_file(file).items() if k.startswith(prefix)})
    return True


class Course:
    """A stage on its way through its steps, all runs together.

    Attributes:
        journal: the stage's records.
        step: steps made so far.
    """

    def __init__(
        self,
        out: Path,
        stage: str,
        model: nn.Module,
        optimiser: Muon,
        schedule: Schedule,
        *,
        decay: float = 0.998,
        smoothing: float = 0.97,
        told: int = 50,
        saved: int = 100,
    ) -> None:
        """Go on where the state in `out`/`stage` ends.

        Args:
            out: where state and log are kept.
            stage: its name.
            model: that is trained.
            optimiser: of its weights.
            schedule: of the step size.
            decay: of the average, see `Average`.
            smoothing: share of a told figure that stays at every step.
            told: steps between two records.
            saved: steps between two states.
        """
        self._folder, self._model, self._optimiser, self._schedule = out / stage, model, optimiser, schedule
        self._average = Average(model, decay)
        self._smoothing, self._told, self._saved = smoothing, told, saved
        self._running: dict[str, float] = {}
        self.step = self._first = load_state(self._folder, model, self._average, optimiser)
        self._started = time.monotonic()
        self.journal = Journal(out / "log.jsonl", stage)

    @property
    def over(self) -> bool:
        """Whether all steps are made."""
        return self.step >= self._schedule.steps

    def learn(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Make one step down `loss`; `terms` are told, smoothed, and the state is saved, every so many steps.

        Raises:
            TrainingError: the loss is not finite.
        """
        if not math.isfinite(loss.item()):
            raise TrainingError(f"The loss is not finite at step {self.step}; lower the step size and go on.")
        loss.backward()
        self._optimiser.step(self._schedule.factor(self.step))
        self.step += 1
        self._average.take(self._model, self.step)
        for name, term in terms.items():
            before = self._running.get(name, term.item())
            self._running[name] = self._smoothing * before + (1 - self._smoothing) * term.item()
        if self.step % self._told == 0:
            pace = (time.monotonic() - self._started) / (self.step - self._first)
            self.journal.write(step=self.step, pace=pace, factor=self._schedule.factor(self.step), **self._running)
        if self.step % self._saved == 0 or self.over:
            save_state(self._folder, self._model, self._average, self._optimiser)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has its averaged weights within the block, to be measured."""
        own = self._average.into(self._model)
        yield
        self._model.load_state_dict(own)
