"""Folders of data that are made by a command: there under their name only when they are complete."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rap_edge.runtime.checks.bounds import SEEDS, Whole, argument
from rap_edge.runtime.errors import OutputError

from .sentences import SPLITS


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A sibling of `out` to be filled within the block, which takes its name behind it.

    Raises:
        OutputError: `out` exists.
    """
    if out.exists():
        raise OutputError(f"'{out}' exists already; remove it or name another folder.")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    os.replace(part, out)


def new_arrays(folder: Path, arrays: Mapping[str, tuple[type[np.generic], tuple[int, ...]]]) -> None:
    """Write a file NAME.npy of zeros for every name with its type and shape, which processes may map and fill."""
    for name, (dtype, shape) in arrays.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()


def add_arguments(parser: argparse.ArgumentParser, pieces: str) -> None:
    """What every such command is told: where to, how many `pieces`, from which seed, of which split, by how many."""
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument(f"--{pieces}", type=argument(Whole(1, 1_000_000)), required=True)
    parser.add_argument("--seed", type=argument(SEEDS), default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--processes", type=argument(Whole(1, 1024)), default=os.cpu_count() or 1)
