"""Weights that are a pure function of (seed, tensor name, shape), so a stored case needs no weights.

A case in tests/data holds the shapes, the seed, the inputs and what the published implementation computed.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import torch
from helpers.places import DATA


def seeded_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Standard normal values scaled by the tensor's role: gains near 1, matrices by 1/sqrt(fan in), biases small."""
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
    if len(shape) == 1 and "norm" in name and name.endswith(".weight"):
        return 1 + 0.1 * values
    if "modulation" in name:
        return 0.1 * values
    if len(shape) > 1:
        return values * np.float32(1.0 / np.sqrt(np.prod(shape[1:])))
    return 0.02 * values


def load_case(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A case's description, its seeded weights by name, and its arrays in fp32."""
    case = json.loads((DATA / f"{name}.json").read_text())
    weights = {
        tensor: torch.from_numpy(seeded_tensor(tensor, tuple(shape), case["seed"]))
        for tensor, shape in case["shapes"].items()
    }
    with np.load(DATA / f"{name}.npz") as arrays:
        return case, weights, {key: torch.from_numpy(arrays[key]).float() for key in arrays.files}
