"""What the three training stages share: the log, how a state is written, and batches made beside the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor


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


def save_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `state.safetensors` into `folder`; who is killed meanwhile leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "state.tmp"
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, temporary)
    temporary.replace(folder / "state.safetensors")


def prefetch(make: Callable[[np.random.Generator], Mapping[str, Tensor]], seed: int) -> Iterator[Mapping[str, Tensor]]:
    """Endless batches of `make`, the next one prepared in a thread while the current one is used."""
    rng = np.random.default_rng(seed)
    with ThreadPoolExecutor(1) as pool:
        pending: Future[Mapping[str, Tensor]] = pool.submit(make, rng)
        while True:
            batch = pending.result()
            pending = pool.submit(make, rng)
            yield batch
