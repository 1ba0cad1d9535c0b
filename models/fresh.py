"""Random weights of large networks in seconds: every tensor is drawn by a generator of its own, side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn


def draw_uniform(weights: Sequence[tuple[Tensor, float]], generator: torch.Generator | None) -> None:
    """Fill tensors with uniform numbers in -bound..bound that depend on `generator`, or PyTorch's own, alone.

    Args:
        weights: each with its bound; large ones are drawn side by side.
        generator: of the CPU, gives every tensor its seed.
    """
    seeds = torch.randint(1 << 62, (len(weights),), generator=generator, device="cpu").tolist()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A list, so that an error of a thread is raised here.
        list(pool.map(_draw, (tensor for tensor, _ in weights), (bound for _, bound in weights), seeds))


def draw_weights(
    network: nn.Module, generator: torch.Generator | None, near_zero: Callable[[str], bool] = lambda name: False
) -> None:
    """Draw fresh weights: uniform of deviation 1/sqrt(fan in), gains one, biases zero.

    Args:
        network: all of whose parameters are drawn.
        generator: see `draw_uniform`.
        near_zero: of which parameters, by name, the deviation is 0.02.
    """
    drawn = []
    for name, parameter in network.named_parameters():
        if near_zero(name):
            drawn.append((parameter, 0.02 * math.sqrt(3.0)))
        elif parameter.dim() > 1:
            drawn.append((parameter, math.sqrt(3.0 / parameter[0].numel())))
        else:
            nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
    draw_uniform(drawn, generator)


def _draw(tensor: Tensor, bound: float, seed: int) -> None:
    if tensor.is_meta:  # a network that is built for its shapes
        return
    nn.init.uniform_(tensor, -bound, bound, generator=torch.Generator(tensor.device).manual_seed(seed))
