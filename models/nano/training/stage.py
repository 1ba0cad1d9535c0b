"""What the three training stages share: the clock with its decaying step size, log, checkpoint and resumption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .optim import Muon


class Clock:
    """Counts the seconds trained over all resumptions and gives the step size of the moment.

    Args:
        seconds: training time of the stage.
        elapsed: seconds already spent by earlier runs.
        warmup: seconds of linear warm-up.
        floor: the share of the time at the end in which the step size falls to zero (cosine).
    """

    def __init__(self, seconds: float, elapsed: float = 0.0, warmup: float = 30.0, floor: float = 0.7) -> None:
        self.seconds, self.warmup, self.floor = seconds, warmup, floor
        self._start = time.monotonic() - elapsed

    @property
    def elapsed(self) -> float:
        """Seconds trained."""
        return time.monotonic() - self._start

    @property
    def done(self) -> bool:
        """Whether the time is up."""
        return self.elapsed >= self.seconds

    @property
    def factor(self) -> float:
        """Step size in 0..1."""
        progress = min(1.0, self.elapsed / self.seconds)
        rise = min(1.0, (self.elapsed + 1.0) / self.warmup)
        fall = (
            1.0
            if progress < 1 - self.floor
            else 0.5 + 0.5 * math.cos(math.pi * (progress - 1 + self.floor) / self.floor)
        )
        return rise * max(fall, 0.01)


class Journal:
    """Appends records to `log.jsonl` and prints them."""

    def __init__(self, file: Path, stage: str) -> None:
        self.file, self.stage = file, stage
        file.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **record: Any) -> None:
        """One line: the stage and the given figures."""
        line = {"stage": self.stage, **{k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()}}
        with self.file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        print(" ".join(f"{k}={v}" for k, v in line.items()), flush=True)


def save_tensors(folder: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write `state.safetensors` into `folder`; who is killed meanwhile leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "state.tmp"
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, temporary, metadata=metadata)
    temporary.replace(folder / "state.safetensors")


def save_checkpoint(folder: Path, model: nn.Module, optimiser: Muon, elapsed: float) -> None:
    """Write the training state of a stage into `folder`, so that `load_checkpoint` can go on from it."""
    state = {f"model/{k}": v for k, v in model.state_dict().items()}
    state.update({f"optim/{k}": v for k, v in optimiser.tensors().items()})
    save_tensors(folder, state, {"elapsed": str(elapsed)})
    (folder / "elapsed.json").write_text(json.dumps({"elapsed": elapsed}), encoding="utf-8")


def load_trained(folder: Path, model: nn.Module) -> bool:
    """Give `model` the weights that `save_checkpoint` wrote; False if there are none."""
    if not (folder / "state.safetensors").exists():
        return False
    state = load_file(folder / "state.safetensors")
    model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model/")})
    return True


def load_checkpoint(folder: Path, model: nn.Module, optimiser: Muon) -> float:
    """Restore what `save_checkpoint` wrote; the seconds trained so far, 0 if there is no checkpoint."""
    if not (folder / "state.safetensors").exists():
        return 0.0
    state = load_file(folder / "state.safetensors")
    model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model/")})
    optimiser.load_tensors({k[6:]: v for k, v in state.items() if k.startswith("optim/")})
    return float(json.loads((folder / "elapsed.json").read_text(encoding="utf-8"))["elapsed"])


def prefetch(make: Callable[[np.random.Generator], Mapping[str, Tensor]], seed: int) -> Iterator[Mapping[str, Tensor]]:
    """Endless batches of `make`, the next one prepared in a thread while the current one is used."""
    rng = np.random.default_rng(seed)
    with ThreadPoolExecutor(1) as pool:
        pending: Future[Mapping[str, Tensor]] = pool.submit(make, rng)
        while True:
            batch = pending.result()
            pending = pool.submit(make, rng)
            yield batch
